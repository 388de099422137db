import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { attach } from '../attach.js';
import { describeEngines, relativeError } from '../testing/engines.js';
import { findFusions } from './fuse.js';
import { leaves } from './keras.js';

/** Two residual blocks: one with an identity, one with a normalised projection on the other side of the addition. */
function residualModel(options: { readBetween?: boolean } = {}): tf.LayersModel {
  let seed = 1;
  const conv = (name: string, x: tf.SymbolicTensor): tf.SymbolicTensor =>
    tf.layers
      .conv2d({
        name,
        filters: 4,
        kernelSize: 3,
        padding: 'same',
        useBias: false,
        kernelInitializer: tf.initializers.glorotNormal({ seed: seed++ }),
      })
      .apply(x) as tf.SymbolicTensor;
  const norm = (name: string, x: tf.SymbolicTensor): tf.SymbolicTensor =>
    tf.layers
      .batchNormalization({
        name,
        gammaInitializer: tf.initializers.randomUniform({ minval: 0.5, maxval: 1.5, seed: seed++ }),
      })
      .apply(x) as tf.SymbolicTensor;
  const relu = (name: string, x: tf.SymbolicTensor): tf.SymbolicTensor =>
    tf.layers.activation({ name, activation: 'relu' }).apply(x) as tf.SymbolicTensor;
  const add = (name: string, a: tf.SymbolicTensor, b: tf.SymbolicTensor): tf.SymbolicTensor =>
    tf.layers.add({ name }).apply([a, b]) as tf.SymbolicTensor;
  const input = tf.input({ shape: [6, 6, 3], name: 'in' });
  const first = relu('relu1', norm('norm1', conv('conv1', input)));
  const inner = norm('norm2', conv('conv2', first));
  const second = relu('relu2', add('add1', inner, first));
  const third = relu('relu3', add('add2', norm('normA', conv('convA', second)), norm('normB', conv('convB', second))));
  const pooled = tf.layers
    .globalAveragePooling2d({ dataFormat: 'channelsLast' })
    .apply(options.readBetween ? add('add3', third, inner) : third) as tf.SymbolicTensor;
  return tf.model({
    inputs: input,
    outputs: tf.layers
      .dense({ name: 'out', units: 2, kernelInitializer: tf.initializers.glorotNormal({ seed: 99 }) })
      .apply(pooled) as tf.SymbolicTensor,
  });
}

const names = (model: tf.LayersModel): string[] =>
  findFusions(
    model,
    leaves(model).map(({ layer }) => layer),
  ).map(({ norm, add, relu }) => [norm, add, relu].flatMap((l) => l?.name ?? []).join(' '));

describe('findFusions', () => {
  it('finds norm + relu and norm + add + relu, an addition once', () => {
    expect(names(residualModel())).toEqual(['norm1 relu1', 'norm2 add1 relu2', 'normA add2 relu3']);
  });

  it('leaves alone what another layer or the model’s output reads', () => {
    expect(names(residualModel({ readBetween: true }))).toEqual(['norm1 relu1', 'normA add2 relu3']);
    const input = tf.input({ shape: [3] });
    const norm = tf.layers.batchNormalization({ name: 'n' }).apply(input) as tf.SymbolicTensor;
    const relu = tf.layers.activation({ name: 'r', activation: 'relu' }).apply(norm) as tf.SymbolicTensor;
    expect(names(tf.model({ inputs: input, outputs: [norm, relu] }))).toEqual([]);
    const tanh = tf.layers
      .activation({ activation: 'tanh' })
      .apply(tf.layers.batchNormalization().apply(input)) as tf.SymbolicTensor;
    expect(names(tf.model({ inputs: input, outputs: tanh }))).toEqual([]);
  });
});

describe('findFusions at the edges', () => {
  const bn = (x: tf.SymbolicTensor): tf.SymbolicTensor => tf.layers.batchNormalization().apply(x) as tf.SymbolicTensor;
  const act = (x: tf.SymbolicTensor): tf.SymbolicTensor =>
    tf.layers.activation({ activation: 'relu' }).apply(x) as tf.SymbolicTensor;

  it('leaves a broadcast addition alone, which trains as before', () => {
    const input = tf.input({ shape: [4, 4, 3] });
    const gate = tf.input({ shape: [1, 1, 3] });
    const model = tf.model({
      inputs: [input, gate],
      outputs: act(tf.layers.add().apply([bn(input), gate]) as tf.SymbolicTensor),
    });
    expect(names(model)).toEqual([]);
  });

  it('leaves alone what a nested model hands out', () => {
    const inner = tf.input({ shape: [3] });
    const norm = bn(inner);
    const nested = tf.model({ inputs: inner, outputs: [norm, act(norm)] });
    const outer = tf.input({ shape: [3] });
    const [a, b] = nested.apply(outer) as tf.SymbolicTensor[];
    expect(names(tf.model({ inputs: outer, outputs: tf.layers.add().apply([a!, b!]) as tf.SymbolicTensor }))).toEqual(
      [],
    );
  });
});

await describeEngines('a model with fused layers', () => {
  it('computes the outputs, gradients and moving averages of the plain one', () => {
    const x = tf.randomNormal([8, 6, 6, 3], 0.5, 2, 'float32', 7);
    const run = (model: tf.LayersModel): Float32Array[] =>
      tf.tidy(() => {
        const { value, grads } = tf.variableGrads(
          () => tf.mean(tf.square(model.apply(x, { training: true }) as tf.Tensor)) as tf.Scalar,
        );
        const gradients = model.trainableWeights.map(
          (w) => grads[(w.read() as tf.Variable).name]!.dataSync().slice() as Float32Array,
        );
        return [
          value.dataSync() as Float32Array,
          ...gradients,
          ...model.getWeights().map((w) => w.dataSync().slice() as Float32Array),
        ];
      });
    const plain = run(residualModel());
    const model = residualModel();
    const attachment = attach(model);
    // float32 through the stock gradient of tf.moments.
    run(model).forEach((values, i) => expect(relativeError(values, plain[i]!), String(i)).toBeLessThan(2e-4));
    attachment.detach();
    expect(model.layers.some((layer) => Object.hasOwn(layer, 'call'))).toBe(false);
    x.dispose();
  });
});
