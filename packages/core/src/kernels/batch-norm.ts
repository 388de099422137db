import * as tf from '@tensorflow/tfjs';
import type { FusedActivation } from './bias-activation.js';
import { type Composite, leading, registerGradientOnce, runKernel } from './run.js';

interface Attrs {
  readonly epsilon: number;
  readonly activation: FusedActivation;
  readonly residual: boolean;
}

type Inputs = Record<string, tf.Tensor>;

const forward: Composite = {
  name: 'FrugalBatchNorm',
  compute: (inputs: Inputs, { epsilon, activation }: Attrs) => {
    const { x, gamma, beta, residual } = inputs as Required<Inputs> as {
      x: tf.Tensor;
      gamma: tf.Tensor;
      beta: tf.Tensor;
      residual?: tf.Tensor;
    };
    const axes = leading(x);
    const mean = tf.mean(x, axes);
    const centred = tf.sub(x, mean);
    const variance = tf.mean(tf.square(centred), axes);
    const invStd = tf.rsqrt(tf.add(variance, epsilon));
    const normal = tf.add(tf.mul(centred, tf.mul(invStd, gamma)), beta);
    const sum = residual ? tf.add(normal, residual) : normal;
    return [activation === 'relu' ? tf.relu(sum) : sum, mean, variance, invStd];
  },
};

const gradient: Composite = {
  name: 'FrugalBatchNormGrad',
  compute: (inputs: Inputs, { activation, residual }: Attrs) => {
    const { dy, x, y, gamma, mean, invStd } = inputs as Record<
      'dy' | 'x' | 'y' | 'gamma' | 'mean' | 'invStd',
      tf.Tensor
    >;
    const axes = leading(x);
    const d = activation === 'relu' ? tf.mul(dy, tf.step(y)) : dy;
    const normal = tf.mul(tf.sub(x, mean), invStd);
    const dbeta = tf.sum(d, axes);
    const dgamma = tf.sum(tf.mul(d, normal), axes);
    const count = x.size / gamma.size;
    const inner = tf.sub(d, tf.div(tf.add(dbeta, tf.mul(normal, dgamma)), count));
    const dx = tf.mul(inner, tf.mul(gamma, invStd));
    return residual ? [dx, dgamma, dbeta, d.clone()] : [dx, dgamma, dbeta];
  },
};

/** The composites of this file. */
export const batchNormComposites = [forward, gradient];

/** Registers the gradient of `FrugalBatchNorm`. */
export function registerBatchNormGradient(): void {
  registerGradientOnce({
    kernelName: forward.name,
    inputsToSave: ['x', 'gamma', 'beta'],
    outputsToSave: [true, true, false, true],
    gradFunc: (dys, saved, attrs) => {
      const [x, gamma, beta, y, mean, invStd] = saved as [
        tf.Tensor,
        tf.Tensor,
        tf.Tensor,
        tf.Tensor,
        tf.Tensor,
        tf.Tensor,
      ];
      const dy = (dys as tf.Tensor[])[0] as tf.Tensor;
      const [dx, dgamma, dbeta, dresidual] = runKernel(
        gradient.name,
        { dy, x, y, gamma, beta, mean, invStd },
        attrs as object,
      );
      return {
        x: () => dx as tf.Tensor,
        gamma: () => dgamma as tf.Tensor,
        beta: () => dbeta as tf.Tensor,
        ...(dresidual && { residual: () => dresidual }),
      };
    },
  });
}

/** What {@link batchNorm} returns; mean and (biased) variance are over all axes but the last. */
export interface Normalised {
  /** activation((x − mean)/√(variance + ε)·γ + β (+ residual)). */
  readonly y: tf.Tensor;
  /** Mean per channel. */
  readonly mean: tf.Tensor;
  /** Biased variance per channel. */
  readonly variance: tf.Tensor;
}

/**
 * Batch normalisation over the last axis with batch statistics, fused with a residual and relu. The gradients of
 * TensorFlow.js 4.22 (`FusedBatchNorm_grad.ts` behind `tf.moments`) tile the mean to the size of x and cost ten times more.
 */
export function batchNorm(
  x: tf.Tensor,
  gamma: tf.Tensor,
  beta: tf.Tensor,
  options: { epsilon: number; activation: FusedActivation; residual?: tf.Tensor },
): Normalised {
  const { epsilon, activation, residual } = options;
  const inputs: Inputs = residual ? { x, gamma, beta, residual } : { x, gamma, beta };
  const attrs = { epsilon, activation, residual: residual !== undefined };
  const [y, mean, variance] = runKernel(forward.name, inputs, attrs) as [tf.Tensor, tf.Tensor, tf.Tensor];
  return { y, mean, variance };
}
