import type { Dataset } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { EnsembleReport } from '../ensemble/options.js';

/** 1-H-1 with tanh, all weights N(0, 1). */
export function net(seed: number, hidden = 10): tf.LayersModel {
  const init = (k: number) => tf.initializers.randomNormal({ stddev: 1, seed: 10 * seed + k });
  return tf.sequential({
    layers: [
      tf.layers.dense({
        name: 'hidden',
        units: hidden,
        activation: 'tanh',
        inputShape: [1],
        kernelInitializer: init(1),
        biasInitializer: init(2),
      }),
      tf.layers.dense({ name: 'out', units: 1, kernelInitializer: init(3) }),
    ],
  });
}

/** Mean of some numbers. */
export const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** RMSE of the ensemble's mean prediction to the clean function. */
export function rmse({ predict }: EnsembleReport, data: Dataset): number {
  return tf.tidy(() => {
    const xs = tf.tensor2d(
      data.inputs.map((x) => x / (data.normalize?.std[0] ?? 1)),
      [data.length, 1],
    );
    const ys = tf.tensor2d(data.targets, [data.length, 1]);
    return Math.sqrt(tf.mean(tf.squaredDifference(predict(xs).mean, ys)).dataSync()[0] as number);
  });
}
