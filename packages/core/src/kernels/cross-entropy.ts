import * as tf from '@tensorflow/tfjs';
import { type Composite, registerGradientOnce, runKernel } from './run.js';

const forward: Composite = {
  name: 'FrugalSoftmaxCrossEntropy',
  compute: ({ logits, labels }: Record<string, tf.Tensor>) => {
    const x = logits as tf.Tensor2D;
    const t = labels as tf.Tensor2D;
    const rows = x.shape[0];
    const logSum = tf.logSumExp(x, 1, true);
    const mass = tf.sum(t, 1, true);
    const loss = tf.div(tf.sum(tf.mul(t, tf.sub(logSum, x))), rows);
    const dlogits = tf.div(tf.sub(tf.mul(tf.exp(tf.sub(x, logSum)), mass), t), rows);
    const correct = tf.sum(tf.cast(tf.equal(tf.argMax(x, 1), tf.argMax(t, 1)), 'float32'));
    return [loss, dlogits, correct];
  },
};

/** The composites of this file. */
export const crossEntropyComposites = [forward];

/** Registers the gradient of `FrugalSoftmaxCrossEntropy`. */
export function registerCrossEntropyGradient(): void {
  registerGradientOnce({
    kernelName: forward.name,
    outputsToSave: [false, true, false],
    gradFunc: (dys, saved) => ({
      logits: () => tf.mul(saved[0] as tf.Tensor, (dys as tf.Tensor[])[0] as tf.Tensor),
      labels: () => {
        throw new Error('softmaxCrossEntropy has no gradient for its labels.');
      },
    }),
  });
}

/**
 * Mean cross-entropy of softmax(logits) against labels, both [B, C], with the number of rows whose largest logit is at
 * their largest label. One pass, where `tf.losses.softmaxCrossEntropy` takes a dozen kernels.
 */
export function softmaxCrossEntropy(logits: tf.Tensor, labels: tf.Tensor): { loss: tf.Scalar; correct: tf.Scalar } {
  const [loss, , correct] = runKernel(forward.name, { logits, labels }) as [tf.Scalar, tf.Tensor, tf.Scalar];
  return { loss, correct };
}
