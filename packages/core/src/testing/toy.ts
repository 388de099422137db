import * as tf from '@tensorflow/tfjs';
import { batches, type Dataset } from '../data.js';
import { sgdUpdate } from '../kernels/update.js';
import { stream } from '../rng.js';
import { hyper, type Hyper } from '../schedule.js';
import type { UpdateLink } from '../link.js';
import type { Batch } from '../step.js';

/** A small classification set: three kinds of noisy 8×8 images that a tiny network learns in a few steps. */
export function toyImages(length = 96, seed = 5): Dataset {
  const random = stream(seed, 'toy');
  const targets = Uint8Array.from({ length }, (_, i) => i % 3);
  const inputs = Uint8Array.from({ length: length * 64 }, (_, i) => {
    const kind = Math.floor(i / 64) % 3;
    const inside = Math.floor((i % 64) / 24) === kind;
    return (inside ? 150 : 40) + random.below(80);
  });
  return {
    name: 'toy',
    origin: 'made',
    length,
    shape: [8, 8, 1],
    inputs,
    normalize: { mean: [100], std: [60] },
    classes: ['a', 'b', 'c'],
    targets,
  };
}

/** A small convolutional network for {@link toyImages}; every kind of layer that training treats specially. */
export function toyModel(seed = 1, extras: { batchNorm?: boolean; dropout?: number } = {}): tf.Sequential {
  const init = (offset: number) => tf.initializers.glorotUniform({ seed: seed * 10 + offset });
  const model = tf.sequential();
  model.add(
    tf.layers.conv2d({
      name: 'conv',
      inputShape: [8, 8, 1],
      filters: 4,
      kernelSize: 3,
      padding: 'same',
      activation: 'relu',
      kernelInitializer: init(1),
    }),
  );
  if (extras.batchNorm) model.add(tf.layers.batchNormalization({ name: 'norm' }));
  model.add(tf.layers.maxPooling2d({ poolSize: 2 }));
  if (extras.dropout !== undefined) model.add(tf.layers.dropout({ rate: extras.dropout }));
  model.add(
    tf.layers.conv2d({
      name: 'conv2',
      filters: 12,
      kernelSize: 3,
      strides: 2,
      padding: 'same',
      activation: 'relu',
      kernelInitializer: init(2),
    }),
  );
  model.add(tf.layers.flatten());
  model.add(tf.layers.dense({ name: 'hidden', units: 24, activation: 'tanh', kernelInitializer: init(3) }));
  model.add(tf.layers.dense({ name: 'head', units: 3, activation: 'softmax', kernelInitializer: init(4) }));
  return model;
}

/** Heavy-ball momentum as a link, for tests of core, which must not depend on the optim package. */
export function toySgd(learningRate: Hyper = 0.1, momentum = 0.9): UpdateLink {
  const rate = hyper('toySgd', 'learningRate', learningRate);
  return {
    kind: 'update',
    name: 'toySgd',
    rateOf: () => rate,
    open({ params }) {
      const velocity = new Map(
        params.map(({ name, value }) => [name, tf.tidy(() => tf.variable(tf.zerosLike(value), false))]),
      );
      return {
        apply(gradients, { clock }) {
          const numbers = { learningRate: rate(clock), momentum, nesterov: false, weightDecay: 0 };
          for (const { name, value } of params) {
            const g = gradients.get(name);
            if (g) sgdUpdate(value, g, velocity.get(name), numbers);
          }
        },
        state: () => new Map([...velocity].map(([name, v]) => [`toySgd/velocity/${name}`, v])),
        hyperparameters: ({ clock }) => ({ learningRate: rate(clock) }),
        dispose: () => velocity.forEach((v) => v.dispose()),
      };
    },
  };
}

/** The first examples of a data set in their stored order, as a batch that stays. */
export function firstBatch(data: Dataset, batchSize: number): Batch {
  // The walk stays where it is: going on, or ending it, would dispose the batch.
  const { xs, ys } = batches(data, { batchSize }).next().value as Batch;
  return { xs, ys };
}

/** The weights of a model as one plain array. */
export function weightsOf(model: tf.LayersModel): number[] {
  return model.getWeights().flatMap((w) => [...w.dataSync()]);
}
