import {
  attach,
  type Attachment,
  clockAt,
  type Dataset,
  type Method,
  type OpenedMethod,
  stream,
  train,
  type UpdateLink,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** Plain gradient descent: the optim package is not a dependency of this one. */
export const descent = (rate = 0.1): UpdateLink => ({
  kind: 'update',
  name: 'descent',
  rateOf: () => () => rate,
  open: ({ params }) => ({
    apply(gradients) {
      for (const { name, value } of params) {
        const gradient = gradients.get(name);
        if (gradient) value.assign(tf.add(value, tf.mul(gradient, -rate)));
      }
    },
  }),
});

/** A method of these parts, which need no state of a run. */
export const methodOf = (parts: OpenedMethod = {}): Method => ({ name: 'parts', source: 'test', open: () => parts });

/** A chain of dense layers with seeded weights, whose squares may be penalised. */
export function mlp(
  widths: readonly number[],
  activation: 'linear' | 'tanh' | 'relu',
  end = 'softmax',
  penalty = 0,
): tf.Sequential {
  const [inputs, ...units] = widths as [number, ...number[]];
  const model = tf.sequential();
  for (const [i, width] of units.entries()) {
    const last = i === units.length - 1;
    model.add(
      tf.layers.dense({
        name: `dense${i + 1}`,
        units: width,
        activation: (last ? end : activation) as 'linear',
        kernelInitializer: tf.initializers.glorotUniform({ seed: 7 + i }),
        ...(penalty > 0 && { kernelRegularizer: tf.regularizers.l2({ l2: penalty }) }),
        ...(i === 0 && { inputShape: [inputs] }),
      }),
    );
  }
  return model;
}

/** Normal inputs, classes given by a random network with one hidden layer. */
export function taught(length: number, inputs: number, classes: number, seed = 3): Dataset {
  const random = stream(seed, 'taught');
  const draw = (count: number): Float32Array => Float32Array.from({ length: count }, () => random.normal());
  const [x, a, b] = [draw(length * inputs), draw(inputs * 32), draw(32 * classes)];
  const targets = tf.tidy(() => {
    const h = tf.tanh(tf.matMul(tf.tensor2d(x, [length, inputs]), tf.tensor2d(a, [inputs, 32])));
    return tf.argMax(tf.matMul(h, tf.tensor2d(b, [32, classes])), 1).dataSync();
  });
  return {
    name: 'taught',
    origin: 'made by the test',
    length,
    shape: [inputs],
    inputs: x,
    targets: Uint8Array.from(targets),
    classes: Array.from({ length: classes }, (_, i) => `${i}`),
  };
}

/** The matrix of `dfa` as its definition says it: [m, C]. */
export function uniformMatrix(seed: number, index: number, m: number, errors: number): tf.Tensor2D {
  const random = stream(seed, 'feedback', index);
  const values = Float32Array.from({ length: m * errors }, () => (2 * random.next() - 1) / Math.sqrt(m));
  return tf.tensor2d(values, [m, errors]);
}

/** dW and db of each trainable weight under a loss of the outputs, in step 0 of a run with this seed. */
export function gradients(
  model: tf.LayersModel,
  methods: readonly Method[],
  loss: (attachment: Attachment) => tf.Scalar,
  seed = 1,
): Float32Array[] {
  const attachment = attach(model, ...methods);
  attachment.begin(clockAt(0), { seed });
  const variables = model.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const { value, grads } = tf.variableGrads(() => loss(attachment), variables);
  const values = variables.map(({ name }) => Float32Array.from(grads[name]?.dataSync() ?? []));
  tf.dispose([value, ...Object.values(grads)]);
  attachment.detach();
  return values;
}

/** Trains on `data` and hands back the weights and the report. */
export async function trained(
  model: tf.LayersModel,
  data: Dataset,
  methods: readonly Method[],
  { epochs = 1, batchSize = 20, rate = 0.1, seed = 1 } = {},
) {
  const report = await train(model, data, {
    methods,
    optimizer: descent(rate),
    epochs,
    batchSize,
    seed,
    progress: false,
  });
  const weights = model.getWeights().map((weight) => Float32Array.from(weight.dataSync()));
  return { weights, report };
}
