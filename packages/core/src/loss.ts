import * as tf from '@tensorflow/tfjs';
import { FrugalError } from './errors.js';
import { softmaxCrossEntropy } from './kernels/cross-entropy.js';
import { finalLayer, type LinearLayer, outputLayers } from './layers/keras.js';
import { hasSoftmax } from './layers/layer-kind.js';

/** A loss: its mean over the batch and, for classification, the number of correct predictions. */
export interface Loss {
  /** Name, for reports. */
  readonly name: string;
  /** Does it take the values before a final softmax? Then the trainer leaves the softmax out. */
  readonly logits: boolean;
  /** The loss of outputs against targets. */
  compute(outputs: tf.Tensor, targets: tf.Tensor): { loss: tf.Scalar; correct?: tf.Scalar };
}

/** Cross-entropy of the softmax of the outputs against one-hot (or soft) targets. */
export const crossEntropy: Loss = { name: 'crossEntropy', logits: true, compute: softmaxCrossEntropy };

/** Mean of squared differences over batch and outputs. */
export const meanSquaredError: Loss = {
  name: 'meanSquaredError',
  logits: false,
  compute: (outputs, targets) => ({ loss: tf.mean(tf.squaredDifference(outputs, targets)) as tf.Scalar }),
};

const SQUASHING = ['sigmoid', 'tanh', 'relu', 'relu6', 'hardSigmoid', 'softplus', 'softsign'];

/**
 * Cross-entropy takes logits: a model that ends in softmax is trained on what comes before it, one that ends linearly as
 * it is. Any other end would silently train something else.
 *
 * @throws {@link FrugalError} `CONFIG`
 */
export function checkLoss(model: tf.LayersModel, loss: Loss): void {
  if (model.outputs.length !== 1)
    throw new FrugalError(
      'CONFIG',
      `train() needs a model of one output; ${model.name} has ${model.outputs.length}. Use attach() with model.fit, or a loop of your own.`,
    );
  if (!loss.logits) return;
  const last = finalLayer(model) as LinearLayer;
  const activation = last.activation?.getClassName() ?? 'linear';
  const behind = outputLayers(model, hasSoftmax).find((layer) => layer !== last);
  if (behind !== undefined) {
    throw new FrugalError(
      'CONFIG',
      `${loss.name} expects the softmax at the very end, but ${last.name} comes after the softmax of ${behind.name}. Move the softmax, or pass another loss.`,
    );
  }
  if (SQUASHING.includes(activation)) {
    throw new FrugalError(
      'CONFIG',
      `${loss.name} expects a model that ends in softmax or linearly, but ${last.name} ends in ${activation}. Change that layer, or pass another loss.`,
    );
  }
}
