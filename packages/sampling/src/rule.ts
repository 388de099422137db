import {
  type Call,
  checkChoice,
  checkInteger,
  checkOptions,
  type Contraction,
  type HostSelection,
  hyper,
  type Hyper,
  type Method,
  type Product,
  putSlices,
  readsAreFree,
  type Rule,
  type SampledSlices,
  type Schedule,
  type Selection,
  type Site,
  squaredNorms,
  type Stream,
  takeSlices,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { keepCount, sum } from './selection.js';

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

/**
 * Which norms make the weights of a pair (A_i, B_i): `pairs` is |A_i|·|B_i|; `weights` is the norm of the slice of the
 * layer's weight alone, the same on all ranks whose weights are equal; `none` is 1.
 */
export type Weighing = 'pairs' | 'weights' | 'none';

/** Chooses about k of the indices whose weights are given: finite, and at least one positive. */
export type Chooser = (weights: Float64Array, k: number, random: Stream) => HostSelection;

/**
 * Chooses k of the indices whose weights [n] are given, on the engine and without reading from it; called inside `tf.tidy`.
 * Weights that are all zero must do no harm, and those that are not finite must show in the product.
 */
export type DeviceChooser = (weights: tf.Tensor1D, k: number, random: Stream) => Selection;

/** What makes one sampling method. */
export interface SamplingMethod {
  /** Name of the factory. */
  readonly name: string;
  /** Paper and equation. */
  readonly source: string;
  /** Is the estimate of one product unbiased? */
  readonly unbiased: boolean;
  /** What it chooses by. */
  readonly by: Weighing;
  /** Chooses the indices on the host; never none. */
  readonly choose: Chooser;
  /**
   * Chooses them on engines where the host would have to wait for the weights. Default: there too the host chooses, as it does
   * by `none`, where there is nothing to wait for.
   */
  readonly device?: DeviceChooser;
}

/** The sample of Y at one call of a site, if Y is sampled. With `sampled` also dW is zero where that sample has nothing. */
interface Plan {
  readonly selection?: Selection;
  readonly sampled?: SampledSlices;
}

/** The sample of one product; undefined means exact. */
type Sampler = (call: Call, product: Product, left: tf.Tensor, right: tf.Tensor) => Selection | undefined;

/** How much a sampler keeps. */
interface Size {
  readonly keep: Schedule;
  readonly minK: number;
}

type Pair = readonly [left: tf.Tensor, right: tf.Tensor];

const KNOWN = ['keep', 'mode', 'minK', 'skip', 'output'];

/** The weights of the pairs of a product that contracts `axes`. */
function pairWeights(by: Weighing, left: tf.Tensor, right: tf.Tensor, axes: Contraction): Float64Array {
  if (by === 'none') return new Float64Array(left.shape[axes.left] as number).fill(1);
  const b = squaredNorms(right, axes.right).dataSync();
  if (by === 'weights') return Float64Array.from(b, Math.sqrt);
  const a = squaredNorms(left, axes.left).dataSync();
  return Float64Array.from(a, (value, i) => Math.sqrt(value * (b[i] as number)));
}

/** The same weights on the engine. Roots are multiplied, not squares, which float32 holds only up to 10³⁸. */
function pairWeightsOnDevice(
  by: Exclude<Weighing, 'none'>,
  left: tf.Tensor,
  right: tf.Tensor,
  axes: Contraction,
): tf.Tensor1D {
  const b = tf.sqrt(squaredNorms(right, axes.right));
  return by === 'weights' ? b : tf.mul(tf.sqrt(squaredNorms(left, axes.left)), b);
}

function sampler({ name, by, choose, device }: SamplingMethod, { keep, minK }: Size, freeReads: boolean): Sampler {
  return ({ site, scope, key }, product, left, right) => {
    const axes = site.geometry.contractions[product];
    const n = left.shape[axes.left] as number;
    const k = keepCount(n, keep(scope.clock), minK);
    if (k === n) return undefined;
    const random = scope.random(name, key, product);
    if (device && by !== 'none' && !freeReads) return device(pairWeightsOnDevice(by, left, right, axes), k, random);
    const weights = pairWeights(by, left, right, axes);
    const all = sum(weights);
    // Nothing to choose by. A NaN must come out as NaN: a sample could leave it out, and hide that training diverged.
    if (!(all > 0 && all < Infinity)) return undefined;
    return choose(weights, k, random);
  };
}

/** The chosen slices of both operands; the left ones carry the scales. */
function slicesOf(call: Call, product: Product, left: tf.Tensor, right: tf.Tensor, selection: Selection): Pair {
  const axes = call.site.geometry.contractions[product];
  const { indices } = selection;
  return [takeSlices(left, axes.left, selection), takeSlices(right, axes.right, { indices })];
}

const planOf = (call: Call<Plan>): Plan => call.plan as Plan;
const replaceAt = (shape: readonly number[], axis: number, n: number): number[] =>
  shape.map((d, i) => (i === axis ? n : d));

/** A selection that gradients and links may come back to: what of it is on the engine lives until the step ends. */
function kept({ scope, key }: Call, { size, indices, scales }: Selection): Selection {
  const hold = <T extends object>(part: string, value: T): T => {
    if (!(value instanceof tf.Tensor)) return value;
    scope.keep(`${key}/${part}`, value);
    return scope.get(`${key}/${part}`) as T & tf.Tensor;
  };
  return { size, indices: hold('indices', indices), ...(scales && { scales: hold('scales', scales) }) };
}

function forwardPlan(sample: Sampler, call: Call, x: tf.Tensor, w: tf.Tensor): Plan {
  const selection = sample(call, 'forward', x, w);
  return selection ? { selection: kept(call, selection) } : {};
}

/** Y is sampled; dX and dW are the exact gradients of that Y, so they are zero where nothing was chosen. */
function through(sample: Sampler): Partial<Rule<Plan>> {
  const nameOf = ({ key }: Call, operand: 'x' | 'w'): string => `${key}/${operand}`;
  return {
    plan(call, x, w) {
      const plan = forwardPlan(sample, call, x, w);
      if (!plan.selection) return plan;
      const axis = call.site.geometry.contractions.forward.right;
      return { ...plan, sampled: { axis, indices: plan.selection.indices } };
    },
    operands(call, x, w) {
      const { selection } = planOf(call);
      if (!selection) return [x, w];
      const [xs, ws] = slicesOf(call, 'forward', x, w, selection);
      call.scope.keep(nameOf(call, 'x'), xs);
      call.scope.keep(nameOf(call, 'w'), ws);
      return [xs, ws];
    },
    inputGrad(call, dy, w, xShape) {
      const { selection } = planOf(call);
      if (!selection) return call.exact.inputGrad(dy, w, xShape);
      const { left } = call.site.geometry.contractions.forward;
      const shape = replaceAt(xShape, left, selection.size);
      const slices = call.exact.inputGrad(dy, call.scope.get(nameOf(call, 'w')) as tf.Tensor, shape);
      return putSlices(slices, left, xShape[left] as number, selection);
    },
    weightGrad(call, x, dy, wShape) {
      const { selection } = planOf(call);
      if (!selection) return call.exact.weightGrad(x, dy, wShape);
      const { right } = call.site.geometry.contractions.forward;
      const shape = replaceAt(wShape, right, selection.size);
      const slices = call.exact.weightGrad(call.scope.get(nameOf(call, 'x')) as tf.Tensor, dy, shape);
      return putSlices(slices, right, wShape[right] as number, { indices: selection.indices });
    },
  };
}

/** Each gradient is sampled over the axis that it contracts. */
function backward(sample: Sampler): Partial<Rule<Plan>> {
  return {
    inputGrad(call, dy, w, xShape) {
      const selection = sample(call, 'inputGrad', dy, w);
      const [d, v] = selection ? slicesOf(call, 'inputGrad', dy, w, selection) : ([dy, w] as const);
      return call.exact.inputGrad(d, v, xShape);
    },
    weightGrad(call, x, dy, wShape) {
      const selection = sample(call, 'weightGrad', x, dy);
      const [v, d] = selection ? slicesOf(call, 'weightGrad', x, dy, selection) : ([x, dy] as const);
      return call.exact.weightGrad(v, d, wShape);
    },
  };
}

/** Y is sampled, nothing else. */
function blackBox(sample: Sampler): Partial<Rule<Plan>> {
  return {
    plan: (call, x, w) => forwardPlan(sample, call, x, w),
    operands(call, x, w) {
      const { selection } = planOf(call);
      return selection ? slicesOf(call, 'forward', x, w, selection) : [x, w];
    },
  };
}

const MODES = { through, backward, blackBox };

/**
 * Makes a sampling method from a chooser: checks the options and writes the three products of each mode over axes, so that
 * dense and convolution are one.
 *
 * @throws FrugalError `CONFIG`
 */
export function samplingMethod(method: SamplingMethod, options: SamplingOptions): Method {
  const { name, source, unbiased } = method;
  checkOptions(name, options, KNOWN);
  const mode = checkChoice(name, 'mode', options.mode ?? 'through', Object.keys(MODES) as SamplingMode[]);
  const { skip, output = false } = options;
  const size: Size = {
    keep: hyper(name, 'keep', options.keep, { min: 0, aboveMin: true, max: 1 }),
    minK: checkInteger(name, 'minK', options.minK ?? 10, { min: 1 }),
  };
  return {
    name,
    source,
    open() {
      const rule: Rule<Plan> = {
        name,
        // A sample of Y goes through a nonlinearity, so its gradient is biased even where the product is not.
        bias: unbiased && mode === 'backward' ? 'unbiased' : 'biased',
        accepts: (site) => (output || site.role === 'hidden') && !(skip?.(site) ?? false),
        ...MODES[mode](sampler(method, size, readsAreFree(tf.getBackend()))),
      };
      return { rule: rule as Rule };
    },
  };
}
