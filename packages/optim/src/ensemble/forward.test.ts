import { attach, stream } from '@frugal/core';
import { describeEngines, expectNoLeak, relativeError, toyModel } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { type ForwardPlan, planForward, predictions } from './forward.js';

const random = (shape: number[], seed: number): tf.Tensor => {
  const source = stream(seed, 'forward');
  const size = shape.reduce((a, b) => a * b, 1);
  return tf.tensor(
    Float32Array.from({ length: size }, () => 0.5 * source.normal()),
    shape,
  );
};

function deepModel(activation: 'tanh' | 'relu' | 'sigmoid' | 'elu'): tf.LayersModel {
  return tf.sequential({
    layers: [
      tf.layers.dense({ units: 5, activation, inputShape: [3, 2] }),
      tf.layers.flatten(),
      tf.layers.dropout({ rate: 0.5 }),
      tf.layers.dense({ units: 6, useBias: false }),
      tf.layers.activation({ activation: 'softplus' }),
      tf.layers.dense({ units: 4, activation: 'softmax' }),
    ],
  });
}

function plans(model: tf.LayersModel): { chosen: ForwardPlan; loop: ForwardPlan; stacked: tf.Tensor[] } {
  const attached = attach(model);
  attached.detach();
  const stacked = attached.params.map(({ value }, i) => random([7, ...value.shape], i));
  return { chosen: planForward(model, attached.params), loop: planForward(model, attached.params, 'loop'), stacked };
}

await describeEngines('the forward pass of an ensemble', () => {
  test.each(['tanh', 'relu', 'sigmoid', 'elu'] as const)('batched equals the loop, %s', (activation) => {
    const { chosen, loop, stacked } = plans(deepModel(activation));
    expect(chosen.mode).toBe('batched');
    const xs = random([4, 3, 2], 99);
    const y = chosen.run(xs, stacked);
    expect(y.shape).toEqual([7, 4, 4]);
    expect(relativeError(y.dataSync(), loop.run(xs, stacked).dataSync())).toBeLessThan(1e-5);
  });

  test('leaves out a final softmax, keeps frozen weights, leaves no tensors and the weights as they were', async () => {
    const model = deepModel('tanh');
    (model.layers[3] as tf.layers.Layer).trainable = false;
    const { chosen, loop, stacked } = plans(model);
    const xs = random([4, 3, 2], 99);
    const before = model.getWeights().map((w) => Array.from(w.dataSync()));
    await expectNoLeak(() => tf.dispose([chosen.run(xs, stacked), loop.run(xs, stacked)]));
    expect(model.getWeights().map((w) => Array.from(w.dataSync()))).toEqual(before);
    const probabilities = chosen.run(xs, stacked, false);
    expect(relativeError(probabilities.dataSync(), loop.run(xs, stacked).dataSync())).toBeLessThan(1e-5);
    const logits = chosen.run(xs, stacked, true);
    expect(relativeError(tf.softmax(logits).dataSync(), probabilities.dataSync())).toBeLessThan(1e-5);
    expect(() => loop.run(xs, stacked, true)).toThrow(/ends linearly/);
  });

  test('a convolutional network is looped over, and says so', () => {
    const { chosen, stacked } = plans(toyModel());
    expect([chosen.mode, chosen.reason]).toEqual(['loop', 'conv is a Conv2D']);
    expect(chosen.run(random([2, 8, 8, 1], 3), stacked).shape).toEqual([7, 2, 3]);
  });

  test('chunks of a large batch are put together in order', () => {
    const { chosen, stacked } = plans(deepModel('tanh'));
    const xs = random([300, 3, 2], 5);
    const { values, shape } = predictions(chosen, xs, stacked);
    expect(shape).toEqual([300, 4]);
    expect(relativeError(values, chosen.run(xs, stacked).dataSync())).toBeLessThan(1e-6);
  });
});

test('weights of another model are refused', () => {
  const attached = attach(deepModel('tanh'));
  expect(() => planForward(deepModel('tanh'), attached.params)).toThrow(/another model/);
  attached.detach();
});
