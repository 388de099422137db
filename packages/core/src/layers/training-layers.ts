import * as tf from '@tensorflow/tfjs';
import { batchNorm } from '../kernels/batch-norm.js';
import type { FusedActivation } from '../kernels/bias-activation.js';
import { dropout } from '../kernels/dropout.js';
import { movingAverage } from '../kernels/update.js';
import { type BatchNormLayer, type CallableLayer, type DropoutLayer, overrideTraining, variableOf } from './keras.js';

/** A batch-normalisation layer on batch statistics, with what is fused into it; moves the layer's averages. */
export function normalise(
  layer: BatchNormLayer,
  x: tf.Tensor,
  activation: FusedActivation,
  residual?: tf.Tensor,
): tf.Tensor {
  return tf.tidy(() => {
    const channels = x.shape.at(-1) as number;
    const gamma = layer.gamma?.read() ?? tf.ones([channels]);
    const beta = layer.beta?.read() ?? tf.zeros([channels]);
    const options = { epsilon: layer.epsilon, activation, ...(residual && { residual }) };
    const { y, mean, variance } = batchNorm(x, gamma, beta, options);
    movingAverage(variableOf(layer.movingMean), mean, layer.momentum);
    movingAverage(variableOf(layer.movingVariance), variance, layer.momentum);
    return y;
  });
}

const installBatchNorm = (layer: BatchNormLayer): (() => void) =>
  overrideTraining(layer, (x) =>
    layer.axis === -1 || layer.axis === x.rank - 1 ? normalise(layer, x, 'linear') : undefined,
  );

const installDropout = (layer: DropoutLayer, seed: () => number): (() => void) =>
  overrideTraining(layer, (x) => {
    if (layer.noiseShape !== undefined && layer.noiseShape !== null) return undefined;
    return layer.rate === 0 ? x.clone() : dropout(x, layer.rate, seed());
  });

/**
 * Replaces what stock layers do slowly or without a seed while training: batch normalisation gets one kernel and its
 * gradient, dropout a mask from the step's stream. Returns undefined for layers that stay as they are.
 */
export function installTrainingLayer(layer: CallableLayer, seed: () => number): (() => void) | undefined {
  switch (layer.getClassName()) {
    case 'BatchNormalization':
      return installBatchNorm(layer as BatchNormLayer);
    case 'Dropout':
      return installDropout(layer as DropoutLayer, seed);
    default:
      return undefined;
  }
}

/** Leaves the softmax out of a layer that does nothing else, while `logits()` is true. */
export function installLogits(layer: CallableLayer, logits: () => boolean): () => void {
  return overrideTraining(layer, (x) => (logits() ? x.clone() : undefined));
}
