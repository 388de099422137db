import * as tf from '@tensorflow/tfjs';
import { runKernel } from './run.js';

/** Numbers of one SGD update. */
export interface SgdHyper {
  /** η. */
  readonly learningRate: number;
  /** μ. */
  readonly momentum: number;
  /** Look ahead along the velocity? */
  readonly nesterov: boolean;
  /** λ, coupled: λ·w joins the gradient. Default 0. */
  readonly coupledDecay?: number;
  /** λ, decoupled: the weight also loses η·λ·w. */
  readonly weightDecay: number;
}

/** Numbers of one Adam update. */
export interface AdamHyper {
  /** η. */
  readonly learningRate: number;
  /** Decay of the first moment. */
  readonly beta1: number;
  /** Decay of the second moment. */
  readonly beta2: number;
  /** Factor of g in the first moment: 1 − β1, or 1 in the sum form. */
  readonly gain: number;
  /** ε. */
  readonly epsilon: number;
  /** λ, decoupled. */
  readonly weightDecay: number;
  /** The first moment is divided by it. */
  readonly correction1: number;
  /** The second moment is divided by it. */
  readonly correction2: number;
}

/**
 * Runs an update kernel that works in place. It returns tensors only where a variable shares its memory with another
 * tensor; those are assigned. Returns false where the backend has no such kernel.
 */
function inPlace(kernel: string, g: tf.Tensor, variables: Record<string, tf.Variable>, attrs: object): boolean {
  if (tf.getKernel(kernel, tf.getBackend()) === undefined) return false;
  const fresh = runKernel(kernel, { g, ...variables }, attrs);
  Object.values(variables).forEach((variable, i) => {
    const value = fresh[i];
    if (value === undefined) return;
    variable.assign(value);
    value.dispose();
  });
  return true;
}

/**
 * One SGD update of a weight:
 *   h = g + λ_c·w;  v ← μ·v + h;  d = h without v, v with it, h + μ·v with Nesterov;  w ← w − η·d − η·λ·w
 * In place and in one pass where the engine can.
 */
export function sgdUpdate(w: tf.Variable, g: tf.Tensor, v: tf.Variable | undefined, hyper: SgdHyper): void {
  const { learningRate, momentum, nesterov, weightDecay, coupledDecay = 0 } = hyper;
  if (inPlace('FrugalSgd', g, v ? { w, v } : { w }, { ...hyper, coupledDecay })) return;
  tf.tidy(() => {
    const h = coupledDecay === 0 ? g : tf.add(g, tf.mul(w, coupledDecay));
    if (v) v.assign(tf.add(tf.mul(v, momentum), h));
    const plain: tf.Tensor = v ?? h;
    const direction = v && nesterov ? tf.add(h, tf.mul(v, momentum)) : plain;
    const kept = weightDecay === 0 ? w : tf.mul(w, 1 - learningRate * weightDecay);
    w.assign(tf.sub(kept, tf.mul(direction, learningRate)));
  });
}

/**
 * One Adam update of a weight:
 *   m ← β1·m + gain·g;  v ← β2·v + (1 − β2)·g²;  w ← w − η·(m/c1)/(√(v/c2) + ε) − η·λ·w
 * In place and in one pass where the engine can.
 */
export function adamUpdate(w: tf.Variable, g: tf.Tensor, m: tf.Variable, v: tf.Variable, hyper: AdamHyper): void {
  if (inPlace('FrugalAdam', g, { w, m, v }, hyper)) return;
  const { learningRate, beta1, beta2, gain, epsilon, weightDecay, correction1, correction2 } = hyper;
  tf.tidy(() => {
    m.assign(tf.add(tf.mul(m, beta1), tf.mul(g, gain)));
    v.assign(tf.add(tf.mul(v, beta2), tf.mul(tf.square(g), 1 - beta2)));
    const step = tf.div(tf.div(m, correction1), tf.add(tf.sqrt(tf.div(v, correction2)), epsilon));
    const kept = weightDecay === 0 ? w : tf.mul(w, 1 - learningRate * weightDecay);
    w.assign(tf.sub(kept, tf.mul(step, learningRate)));
  });
}

/** average ← decay·average + (1 − decay)·value, in place: an SGD step of rate −(1 − decay) and weight decay −1. */
export function movingAverage(average: tf.Variable, value: tf.Tensor, decay: number): void {
  sgdUpdate(average, value, undefined, { learningRate: decay - 1, momentum: 0, nesterov: false, weightDecay: -1 });
}
