import * as tf from '@tensorflow/tfjs';
import { stream } from '@frugal/core';

type Initializer = ReturnType<typeof tf.initializers.varianceScaling>;

// Never 0: TF.js takes seed 0 for "no seed" (core/src/ops/rand_util.ts, 4.22.0). 31 bits, so that Keras reads it too.
const seedOf = (seed: number, layer: string): number => 1 + stream(seed, 'init', layer).below(2 ** 31 - 1);

/** Variance of a standard normal distribution that is cut at ±2: 1 − 4·φ(2) / (2·Φ(2) − 1). */
const CUT_VARIANCE = 0.7737413;

/**
 * Weights of a layer with relu behind it: a normal distribution of variance 2 / fan-in (He et al. 2015,
 * arXiv:1502.01852, equation 10), cut at two standard deviations. TF.js's own heNormal cuts without correcting for it
 * and so has only 0.774 of that variance (layers/src/initializers.ts, 4.22.0); the scale given here makes up for it, as
 * Keras does. Each layer has its own seed, drawn from the model's seed and the layer's name.
 */
export function heNormal(seed: number, layer: string): Initializer {
  const scale = 2 / CUT_VARIANCE;
  return tf.initializers.varianceScaling({ scale, mode: 'fanIn', distribution: 'normal', seed: seedOf(seed, layer) });
}

/** Weights of the last layer: uniform, of variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010, equation 16). */
export function glorotUniform(seed: number, layer: string): Initializer {
  return tf.initializers.glorotUniform({ seed: seedOf(seed, layer) });
}
