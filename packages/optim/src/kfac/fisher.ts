import { type Clock, FrugalError, type Loss, type Observer, type Probe } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** One-hot targets [B, K], drawn by the probabilities that these logits have. */
function drawClasses(logits: tf.Tensor, seed: number): tf.Tensor {
  const [, classes = 1] = logits.shape;
  return tf.tidy(() => {
    // The largest of logits with Gumbel noise is a draw from their softmax.
    const uniform = tf.randomUniform(logits.shape, 1e-7, 1, 'float32', seed);
    const noisy = tf.sub(logits, tf.log(tf.neg(tf.log(uniform))));
    return tf.cast(tf.oneHot(tf.argMax(noisy, -1), classes), 'float32');
  });
}

/** Targets drawn from the outputs' own distribution, for the losses of which it is known. */
function draw(outputs: tf.Tensor, { name }: Loss, seed: number): tf.Tensor {
  if (name === 'crossEntropy') return drawClasses(outputs, seed);
  // The mean over outputs of squares is the negative log-likelihood of a normal distribution of variance ½·outputs.
  if (name === 'meanSquaredError') {
    const deviation = Math.sqrt(outputs.size / (outputs.shape[0] as number) / 2);
    return tf.tidy(() => tf.add(outputs, tf.randomNormal(outputs.shape, 0, deviation, 'float32', seed)));
  }
  throw new FrugalError(
    'CONFIG',
    `kfac: expected fisher 'sampled' with crossEntropy or meanSquaredError but the loss is ${name}. Use fisher: 'empirical'.`,
  );
}

/** Shows an observer the true Fisher matrix: a pass of its own, back from targets that the predictions gave. */
export function sampledFisher(observer: Observer, due: (clock: Clock) => boolean): Probe {
  return {
    name: 'kfac',
    before({ scope, loss, pass }) {
      if (!due(scope.clock)) return;
      const seed = scope.random('kfac', 'fisher').seed();
      const targets = (outputs: tf.Tensor): tf.Tensor => draw(outputs, loss, seed);
      const { loss: value, gradients } = pass({ targets, observers: [observer] }).gradients();
      tf.dispose([value, ...gradients.values()]);
    },
  };
}
