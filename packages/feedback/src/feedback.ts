import {
  type Call,
  checkInteger,
  type Method,
  type OpenedMethod,
  type Rule,
  type RunContext,
  type Scope,
  type Site,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { errorObserver, errorOf, valuesPerError } from './error.js';
import type { Matrices, Matrix, MatrixSource } from './matrix.js';
import { type FeedbackReport, type Ledger, ledger, type Measurement } from './report.js';

/** Options of every method that sends the error of the output straight to a layer. */
export interface FeedbackOptions {
  /** Sites whose dX stays dY·Wᵀ. Default none. */
  readonly skip?: (site: Site) => boolean;
  /**
   * One matrix for all layers, of which each takes the first rows (Launay et al. 2019, arXiv 1906.04554). Default false:
   * a matrix for each.
   */
  readonly shared?: boolean;
  /**
   * Compare the feedback with dY·Wᵀ of the same dY in every so many steps. Costs the exact product. Default never. That dY
   * is what feedback has made of the layer above: the angle to the gradient itself is measured by `alignmentMeter`.
   */
  readonly measureEvery?: number;
  /** Receives each measurement; the report has the last ones. */
  readonly onMeasure?: (measurement: Measurement) => void;
}

/** The names of {@link FeedbackOptions}. */
export const FEEDBACK_OPTIONS = ['skip', 'shared', 'measureEvery', 'onMeasure'] as const;

/** A method that tells what its feedback cost: `report.of(method)` has memory, arithmetic and the last cosines. */
export type FeedbackMethod = Method<FeedbackReport>;

/** What makes one feedback method. */
export interface FeedbackParts {
  readonly name: string;
  readonly source: string;
  readonly accepts: (site: Site) => boolean;
  readonly matrices: MatrixSource;
  /** Are the matrices of ±1? */
  readonly signs: boolean;
  /** Does the lowest accepted site stay exact? */
  readonly chained: boolean;
  readonly options: FeedbackOptions;
}

/** Marks a site that stays exact. */
interface Plan {
  readonly exact: boolean;
}

/** dX = e·Bᵀ, in the shape of x. No product of the site's geometry, so it is counted by hand. */
function project(call: Call<Plan>, e: tf.Tensor2D, { gain, product }: Matrix, xShape: readonly number[]): tf.Tensor {
  const dx = product(gain === 1 ? e : tf.mul(e, gain));
  call.count?.('inputGrad', dx.size * e.shape[1]);
  return tf.reshape(dx, [...xShape]);
}

/** Cosine between two tensors of one size; 0 where one of them is zero. */
export function cosineOf(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [u, v] = [a[i] as number, b[i] as number];
    dot += u * v;
    aa += u * u;
    bb += v * v;
  }
  return aa === 0 || bb === 0 ? 0 : dot / Math.sqrt(aa * bb);
}

/** An angle in degrees. */
export const degrees = (cosine: number): number => (Math.acos(Math.min(1, Math.max(-1, cosine))) * 180) / Math.PI;

/** Compares dX with dY·Wᵀ, where it is due. */
function measurer({ options: { measureEvery, onMeasure } }: FeedbackParts, book: Ledger) {
  return ({ site, scope }: Call<Plan>, dx: tf.Tensor, dy: tf.Tensor, w: tf.Tensor): void => {
    const { step } = scope.clock;
    if (measureEvery === undefined || step % measureEvery !== 0) return;
    const exact = site.geometry.products.inputGrad(dy, w, dx.shape);
    const cosine = cosineOf(dx.dataSync(), exact.dataSync());
    book.measured(site, cosine);
    onMeasure?.({ step, site: site.name, cosine, angle: degrees(cosine) });
  };
}

/** The rule of one run. */
function openRule(parts: FeedbackParts, matrices: Matrices, book: Ledger): Rule<Plan> {
  const { name, accepts, chained } = parts;
  const measure = measurer(parts, book);
  const lowest = new WeakMap<Scope, Site>();
  return {
    name,
    bias: 'biased',
    accepts,
    plan({ site, scope }) {
      // The forward pass meets the lowest site first.
      if (!lowest.has(scope)) lowest.set(scope, site);
      return { exact: chained && lowest.get(scope) === site };
    },
    inputGrad(call, dy, w, xShape) {
      const { site, scope, plan } = call;
      if (plan?.exact) return call.exact.inputGrad(dy, w, xShape);
      const e = errorOf(name, site, scope);
      const inputs = valuesPerError(name, site, e, xShape);
      const [rows, errors] = e.shape;
      const b = matrices.of({ site, seed: scope.seed, inputs, errors });
      const dx = project(call, e, b, xShape);
      // A pass that only looks is no part of what the method did.
      if (call.count) {
        book.count(site, { rows, inputs, errors }, b);
        measure(call, dx, dy, w);
      }
      return dx;
    },
  };
}

function openFeedback(parts: FeedbackParts, context: RunContext): OpenedMethod<FeedbackReport> {
  const book = ledger(parts.signs);
  const matrices = parts.matrices(context);
  return {
    rule: openRule(parts, matrices, book) as Rule,
    observer: errorObserver(parts.name),
    report: book.report,
    state: matrices.state,
    dispose: matrices.dispose,
  };
}

/**
 * Makes a method that replaces dX = dY·Wᵀ by e·Bᵀ. The tape then takes it through whatever lies below: activation,
 * pooling, normalisation, dropout.
 *
 * @throws FrugalError `CONFIG`
 */
export function feedbackMethod(parts: FeedbackParts): FeedbackMethod {
  const { name, source, options } = parts;
  if (options.measureEvery !== undefined) checkInteger(name, 'measureEvery', options.measureEvery, { min: 1 });
  return { name, source, open: (context) => openFeedback(parts, context) };
}
