import * as tf from '@tensorflow/tfjs';
import { batches, checkDataset, type Dataset } from './data.js';
import { finalLayer } from './layers/keras.js';
import { hasSoftmax } from './layers/layer-kind.js';
import { registerKernels } from './kernels/register.js';
import { crossEntropy, type Loss, meanSquaredError } from './loss.js';

/** Loss and accuracy over a data set. */
export interface Evaluation {
  /** Mean loss. */
  readonly loss: number;
  /** Share of correct predictions, for classification. */
  readonly accuracy?: number;
}

/** The loss a data set calls for: cross-entropy for classes, squared error for vectors. */
export function defaultLoss(data: Dataset): Loss {
  return data.classes ? crossEntropy : meanSquaredError;
}

/**
 * Loss and accuracy of a model on a data set: exact products, no dropout, whatever is attached.
 *
 * @param options - `batchSize`, default 256; `loss`, default by the data set
 */
export function evaluate(
  model: tf.LayersModel,
  data: Dataset,
  options: { batchSize?: number; loss?: Loss } = {},
): Evaluation {
  registerKernels(tf.getBackend());
  checkDataset(data);
  const { batchSize = 256, loss = defaultLoss(data) } = options;
  const softmax = loss.logits && hasSoftmax(finalLayer(model));
  let lossSum = 0;
  let correctSum = 0;
  for (const { xs, ys } of batches(data, { batchSize })) {
    const [batchLoss, correct] = tf.tidy(() => {
      const outputs = model.apply(xs, { training: false }) as tf.Tensor;
      // log p is a logit of softmax: log Σ exp(log p) = 0.
      const result = loss.compute(softmax ? tf.log(tf.maximum(outputs, 1e-30)) : outputs, ys);
      return [result.loss.dataSync()[0] as number, result.correct?.dataSync()[0] ?? 0];
    });
    lossSum += batchLoss * (xs.shape[0] as number);
    correctSum += correct;
  }
  return { loss: lossSum / data.length, ...(loss.logits && { accuracy: correctSum / data.length }) };
}
