import { attach, train } from '@frugal/core';
import { describeEngines, expectNoLeak, relativeError, toyImages, toyModel, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { lars, type LarsOptions } from './lars.js';
import { sgd } from './sgd.js';
import { paramOf, scopeAt } from './testing/bench.js';
import { openLink } from './testing/open.js';

interface Weight {
  readonly w: number[];
  readonly g: number[];
  readonly shape?: number[];
}

/** The gradients that a step goes on with, by name. */
function updatesOf(weights: Record<string, Weight>, options: LarsOptions = {}, step = 0): Record<string, number[]> {
  const params = Object.entries(weights).map(([name, { w, shape = [w.length, 1] }]) => paramOf(w, shape, name));
  const result = tf.tidy(() => {
    const updates = new Map(
      params.map(({ name, value }) => [name, tf.tensor(weights[name]!.g, value.shape, 'float32')] as const),
    );
    const scaled = openLink(lars(options), params).transform(updates, scopeAt(step, 10));
    return Object.fromEntries([...scaled].map(([name, u]) => [name, [...u.dataSync()]]));
  });
  tf.dispose(params.map(({ value }) => value));
  return result;
}

const close = (actual: number[] | undefined, expected: number[]): void =>
  expect(relativeError(actual ?? [], expected)).toBeLessThan(1e-6);

/** One step of Algorithm 1 of the paper, in float64. */
function paperStep({ w, g }: Weight, v: number[], lr: number, momentum: number, eta: number, lambda: number): void {
  const norm = (x: number[]): number => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
  const local = (eta * norm(w)) / (norm(g) + lambda * norm(w));
  for (let i = 0; i < w.length; i++) {
    v[i] = momentum * v[i]! + lr * local * (g[i]! + lambda * w[i]!);
    w[i]! -= v[i]!;
  }
}

await describeEngines('lars', () => {
  test('by hand: |w| = 5, |g| = 10', () => {
    // 0.001 · 5 / 10 · (6, 8) = (0.003, 0.004)
    close(updatesOf({ a: { w: [3, 4], g: [6, 8] } })['a'], [0.003, 0.004]);
    // λ = 0.5: 0.1 · 5 / (10 + 2.5) = 0.04, times (6 + 1.5, 8 + 2)
    close(updatesOf({ a: { w: [3, 4], g: [6, 8] } }, { trust: 0.1, weightDecay: 0.5 })['a'], [0.3, 0.4]);
    // ε = 90: 0.001 · 5 / 100 · (6, 8)
    close(updatesOf({ a: { w: [3, 4], g: [6, 8] } }, { epsilon: 90 })['a'], [0.0003, 0.0004]);
  });

  test('each weight has a factor of its own, and the length of g does not matter', () => {
    const weights = { a: { w: [3, 4], g: [6, 8] }, b: { w: [0.3, 0.4], g: [600, 800] } };
    const { a, b } = updatesOf(weights);
    close(a, [0.003, 0.004]);
    close(b, [0.0003, 0.0004]);
  });

  test('biases and gains pass, unless told otherwise', () => {
    const bias = { b: { w: [3, 4], g: [6, 8], shape: [2] } };
    expect(updatesOf(bias, { weightDecay: 1 })['b']).toEqual([6, 8]);
    close(updatesOf(bias, { exclude: () => false })['b'], [0.003, 0.004]);
    const kernel = { k: { w: [3, 4], g: [6, 8] } };
    expect(updatesOf(kernel, { exclude: ({ name }) => name === 'k' })['k']).toEqual([6, 8]);
  });

  test('zero weights have the factor 1; zero gradients leave the decay alone', () => {
    expect(updatesOf({ a: { w: [0, 0], g: [6, 8] } }, { weightDecay: 1 })['a']).toEqual([6, 8]);
    expect(updatesOf({ a: { w: [3, 4], g: [0, 0] } })['a']).toEqual([0, 0]);
    // 0.001 · 5 / (0 + 0.5 · 5) · 0.5 · (3, 4)
    close(updatesOf({ a: { w: [3, 4], g: [0, 0] } }, { weightDecay: 0.5 })['a'], [0.003, 0.004]);
    expect(updatesOf({ a: { w: [0, 0], g: [0, 0] } })['a']).toEqual([0, 0]);
    expect(updatesOf({ a: { w: [3, 4], g: [Number.NaN, 1] } })['a']?.[0]).toBeNaN();
  });

  test('with sgd it is Algorithm 1, over ten steps', () => {
    const weight = { w: [1, -2, 0.5], g: [0, 0, 0] };
    const v = [0, 0, 0];
    const param = paramOf(weight.w, [3, 1]);
    const scaling = openLink(lars({ trust: 0.02, weightDecay: 0.01 }), [param]);
    const moving = openLink(sgd({ learningRate: 0.5, momentum: 0.9 }), [param]);
    for (let step = 0; step < 10; step++) {
      weight.g = [0, 1, 2].map((i) => Math.sin(3 * step + i));
      tf.tidy(() => {
        const g = new Map([['w', tf.tensor(weight.g, [3, 1], 'float32')]]);
        void moving.apply(scaling.transform(g, scopeAt(step)), scopeAt(step));
      });
      paperStep(weight, v, 0.5, 0.9, 0.02, 0.01);
    }
    expect(relativeError([...param.value.dataSync()], weight.w)).toBeLessThan(1e-5);
    moving.dispose?.();
    param.value.dispose();
  });

  test('no tensors are left', async () => {
    await expectNoLeak(() => {
      for (let step = 0; step < 10; step++) updatesOf({ a: { w: [3, 4], g: [6, 8] } }, { trust: '1 + step' }, step);
    });
  });

  const optimizer = () => [lars({ trust: 0.02, weightDecay: 1e-4 }), sgd({ learningRate: 1, momentum: 0.9 })];

  test('learns in train, dense and convolution', async () => {
    const model = toyModel();
    const report = await train(model, toyImages(), {
      optimizer: optimizer(),
      epochs: 3,
      batchSize: 16,
      progress: false,
    });
    expect(report.epochs.at(-1)!.loss).toBeLessThan(0.5 * report.epochs[0]!.loss);
    model.dispose();
  });

  test('in fit', async () => {
    const model = toyModel();
    const attached = attach(model);
    const before = weightsOf(model);
    model.compile({ optimizer: attached.optimizer(optimizer()), loss: 'categoricalCrossentropy' });
    const xs = tf.randomNormal([8, 8, 8, 1], 0, 1, 'float32', 3);
    const ys = tf.oneHot(tf.tensor1d([0, 1, 2, 0, 1, 2, 0, 1], 'int32'), 3);
    const history = await model.fit(xs, ys, { epochs: 5, batchSize: 8, verbose: 0 });
    expect(history.history['loss']?.[4]).toBeLessThan(history.history['loss']?.[0] as number);
    expect(relativeError(weightsOf(model), before)).toBeGreaterThan(0.001);
    attached.detach();
    model.dispose();
    tf.dispose([xs, ys]);
  });
});

test('refuses bad options, and says its value', () => {
  expect(() => lars({ trust: 0 })).toThrow(/trust in \(0, ∞\) but received 0/);
  expect(() => lars({ epsilon: 0 })).toThrow(/epsilon in \(0/);
  expect(() => lars({ eta: 1 } as LarsOptions)).toThrow(/received "eta"/);
  expect(() => lars({ exclude: 'bias' } as unknown as LarsOptions)).toThrow(/exclude to be a function/);
  expect(openLink(lars({ trust: '1 + step' }), []).hyperparameters?.(scopeAt(3))).toEqual({ trust: 4 });
});
