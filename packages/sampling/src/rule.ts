import * as tf from '@tensorflow/tfjs';
import {
  type Call,
  checkChoice,
  checkInteger,
  checkOptions,
  contraction,
  hyper,
  type Hyper,
  type Method,
  type Product,
  putSlices,
  type Rule,
  type Schedule,
  type Selection,
  type Site,
  squaredNorms,
  type Stream,
  takeSlices,
} from '@frugal/core';
import { keepCount } from './selection.js';

/**
 * Where sampling acts.
 * - `through`: Y is sampled over the inputs, and the gradients flow through the sample: all three products shrink.
 * - `backward`: Y is exact; dX is sampled over the outputs and dW over the batch.
 * - `blackBox`: Y is sampled; the gradients are those of the exact product.
 */
export type SamplingMode = 'through' | 'backward' | 'blackBox';

/** Options of every sampling method. */
export interface SamplingOptions {
  /** Fraction of the contracted axis to keep, in (0, 1]; 1 is exact, bit for bit. */
  readonly keep: Hyper;
  /** Where to sample. Default `through`, as in most results of the paper. */
  readonly mode?: SamplingMode;
  /**
   * Keep at least so many indices; an axis that is not longer runs exact, which protects a first layer of 1 or 3 channels.
   * Default 10, as in the authors' CIFAR and MLP scripts.
   */
  readonly minK?: number;
  /** Sites to leave exact. Default none. */
  readonly skip?: (site: Site) => boolean;
  /** Sample the output layer too? Default false. */
  readonly output?: boolean;
}

/** Chooses k of the indices whose weights w_i = |A_i|·|B_i| are given; `weights` computes them on demand. */
export type Chooser = (n: number, k: number, weights: () => Float64Array, random: Stream) => Selection | 'exact';

/** What makes one sampling method. */
export interface SamplingMethod {
  /** Name of the factory. */
  readonly name: string;
  /** Paper and equation. */
  readonly source: string;
  /** Is the estimate of one product unbiased? */
  readonly unbiased: boolean;
  /** Chooses the indices. */
  readonly choose: Chooser;
}

/** The sample of Y, if Y is sampled, and where its slices are kept. */
interface Plan {
  readonly selection: Selection | undefined;
  readonly key: string;
}

interface Settings {
  readonly keep: Schedule;
  readonly minK: number;
  readonly mode: SamplingMode;
}

const KNOWN = ['keep', 'mode', 'minK', 'skip', 'output'];

function pairWeights(left: tf.Tensor, leftAxis: number, right: tf.Tensor, rightAxis: number): Float64Array {
  const a = squaredNorms(left, leftAxis).dataSync();
  const b = squaredNorms(right, rightAxis).dataSync();
  return Float64Array.from(a, (value, i) => Math.sqrt(value * (b[i] as number)));
}

/** Chooses for one product; undefined means exact. */
function select(
  method: SamplingMethod,
  settings: Settings,
  call: Call,
  product: Product,
  left: tf.Tensor,
  right: tf.Tensor,
  key: string,
): Selection | undefined {
  const axes = contraction(call.site.geometry, product);
  const n = left.shape[axes.left] as number;
  const k = keepCount(n, settings.keep(call.scope.clock), settings.minK);
  if (k === n) return undefined;
  const weights = (): Float64Array => pairWeights(left, axes.left, right, axes.right);
  const chosen = method.choose(n, k, weights, call.scope.random(method.name, key, product));
  return chosen === 'exact' ? undefined : chosen;
}

const replaceAt = (shape: readonly number[], axis: number, n: number): number[] =>
  shape.map((d, i) => (i === axis ? n : d));
const sliceName = (call: Call<Plan>, operand: 'x' | 'w'): string => `${(call.plan as Plan).key}/${operand}`;

/** Y over the chosen inputs; the slices are kept for the backward pass. */
function sampledForward(call: Call<Plan>, x: tf.Tensor, w: tf.Tensor): tf.Tensor {
  const selection = call.plan?.selection;
  if (!selection) return call.exact.forward(x, w);
  const { left, right } = contraction(call.site.geometry, 'forward');
  if (selection.indices.length === 0) return tf.mul(call.exact.forward(x, w), 0);
  const xs = takeSlices(x, left, selection);
  const ws = takeSlices(w, right, { indices: selection.indices });
  call.scope.keep(sliceName(call, 'x'), xs);
  call.scope.keep(sliceName(call, 'w'), ws);
  return call.exact.forward(xs, ws);
}

function throughInputGrad(call: Call<Plan>, dy: tf.Tensor, w: tf.Tensor, xShape: readonly number[]): tf.Tensor {
  const selection = call.plan?.selection;
  if (!selection) return call.exact.inputGrad(dy, w, xShape);
  if (selection.indices.length === 0) return tf.zeros([...xShape]);
  const { left } = contraction(call.site.geometry, 'forward');
  const shape = replaceAt(xShape, left, selection.indices.length);
  const slices = call.exact.inputGrad(dy, call.scope.get(sliceName(call, 'w')) as tf.Tensor, shape);
  return putSlices(slices, left, xShape[left] as number, selection);
}

function throughWeightGrad(call: Call<Plan>, x: tf.Tensor, dy: tf.Tensor, wShape: readonly number[]): tf.Tensor {
  const selection = call.plan?.selection;
  if (!selection) return call.exact.weightGrad(x, dy, wShape);
  if (selection.indices.length === 0) return tf.zeros([...wShape]);
  const { right } = contraction(call.site.geometry, 'forward');
  const shape = replaceAt(wShape, right, selection.indices.length);
  const slices = call.exact.weightGrad(call.scope.get(sliceName(call, 'x')) as tf.Tensor, dy, shape);
  return putSlices(slices, right, wShape[right] as number, { indices: selection.indices });
}

/** A backward product over chosen indices of its own contracted axis. */
function sampledBackward(
  selection: Selection | undefined,
  axes: { left: number; right: number },
  left: tf.Tensor,
  right: tf.Tensor,
  product: (left: tf.Tensor, right: tf.Tensor) => tf.Tensor,
): tf.Tensor {
  if (!selection) return product(left, right);
  if (selection.indices.length === 0) return tf.mul(product(left, right), 0);
  return product(takeSlices(left, axes.left, selection), takeSlices(right, axes.right, { indices: selection.indices }));
}

function forwardRule(
  method: SamplingMethod,
  settings: Settings,
  nextKey: (call: Call) => string,
): Pick<Rule<Plan>, 'plan' | 'forward'> {
  return {
    plan(call, x, w) {
      const key = nextKey(call);
      return { key, selection: select(method, settings, call, 'forward', x, w, key) };
    },
    forward: sampledForward,
  };
}

function backwardRule(
  method: SamplingMethod,
  settings: Settings,
  nextKey: (call: Call) => string,
): Pick<Rule<Plan>, 'inputGrad' | 'weightGrad'> {
  return {
    inputGrad(call, dy, w, xShape) {
      const selection = select(method, settings, call, 'inputGrad', dy, w, nextKey(call));
      return sampledBackward(selection, contraction(call.site.geometry, 'inputGrad'), dy, w, (d, v) =>
        call.exact.inputGrad(d, v, xShape),
      );
    },
    weightGrad(call, x, dy, wShape) {
      const selection = select(method, settings, call, 'weightGrad', x, dy, nextKey(call));
      return sampledBackward(selection, contraction(call.site.geometry, 'weightGrad'), x, dy, (v, d) =>
        call.exact.weightGrad(v, d, wShape),
      );
    },
  };
}

function rulesOf(mode: SamplingMode, method: SamplingMethod, settings: Settings): Partial<Rule<Plan>> {
  let calls = 0;
  let step = -1;
  // Numbers the calls of a step, so that a layer used twice draws and keeps twice.
  const nextKey = ({ site, scope }: Call): string => {
    if (scope.clock.step !== step) calls = 0;
    step = scope.clock.step;
    return `${site.name}/${calls++}`;
  };
  switch (mode) {
    case 'through':
      return { ...forwardRule(method, settings, nextKey), inputGrad: throughInputGrad, weightGrad: throughWeightGrad };
    case 'backward':
      return backwardRule(method, settings, nextKey);
    case 'blackBox':
      return forwardRule(method, settings, nextKey);
  }
}

/**
 * Makes a sampling method from a chooser: checks the options and writes the three products of each mode over axes, so that
 * dense and convolution are one.
 *
 * @throws FrugalError `CONFIG`
 */
export function samplingMethod(method: SamplingMethod, options: SamplingOptions): Method {
  const { name, source, unbiased } = method;
  checkOptions(name, options, KNOWN);
  const mode = checkChoice(name, 'mode', options.mode ?? 'through', ['through', 'backward', 'blackBox']);
  const settings = {
    mode,
    keep: hyper(name, 'keep', options.keep, { min: 0, aboveMin: true, max: 1 }),
    minK: checkInteger(name, 'minK', options.minK ?? 10, { min: 1 }),
  };
  const { skip, output = false } = options;
  const rule: Rule<Plan> = {
    name,
    // A sample of Y goes through a nonlinearity, so its gradient is biased even where the product is not.
    bias: unbiased && mode === 'backward' ? 'unbiased' : 'biased',
    accepts: (site) => (output || site.role === 'hidden') && !(skip?.(site) ?? false),
    ...rulesOf(mode, method, settings),
  };
  return { name, source, rule: rule as Rule };
}
