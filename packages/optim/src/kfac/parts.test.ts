import { attach, type Link, meanSquaredError, stepper } from '@frugal/core';
import { describeEngines, relativeError, toyModel, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { sgd } from '../sgd.js';
import { normals, numbersOf, stateOf } from '../testing/kfac-runs.js';
import { ekfac, kfac, type KfacMethod } from './index.js';

const settings = { damping: 0.1 } as const;
const momentum = (): Link => sgd({ learningRate: 0.1, momentum: 0.9 });

const averages = (kept: ReadonlyMap<string, number[]>): [string, number[]][] =>
  [...kept].filter(([name]) => /^kfac\/[AGS]\//.test(name));

await describeEngines('K-FAC and a batch in parts', () => {
  /** State and weights after two steps. */
  async function after(
    accumulate: number,
    method: KfacMethod = kfac({ ...settings, factorEvery: 1, inverseEvery: 1 }),
    model: tf.LayersModel = toyModel(2),
    [xs, ys] = [tf.tensor(normals(3, 16, 64).flat(), [16, 8, 8, 1]), tf.tensor2d(normals(4, 16, 3))],
  ) {
    const run = stepper(model, { methods: [method], optimizer: momentum(), loss: meanSquaredError, accumulate });
    for (let i = 0; i < 2; i++) await run.step({ xs, ys });
    const state = stateOf(run);
    const kept = new Map([...state.keys()].map((name) => [name, numbersOf(state, name)]));
    run.dispose();
    tf.dispose([xs, ys]);
    return { kept, weights: weightsOf(model) };
  }

  test.each([2, 3])('of %i: factors and step are those of the whole batch', async (accumulate) => {
    const [whole, parts] = [await after(1), await after(accumulate)];
    expect(averages(whole.kept)).toHaveLength(8);
    for (const [name, values] of averages(whole.kept))
      expect(relativeError(parts.kept.get(name)!, values), name).toBeLessThan(1e-5);
    expect(parts.kept.get('kfac/counts')).toEqual(whole.kept.get('kfac/counts'));
    expect(relativeError(parts.weights, whole.weights)).toBeLessThan(1e-5);
  });

  test('the moments of EK-FAC are those of the first examples of the whole batch', async () => {
    const make = (examples = 4): KfacMethod => ekfac({ ...settings, factorEvery: 1, inverseEvery: 9, examples });
    const [whole, parts] = [await after(1, make()), await after(3, make())];
    expect(averages(whole.kept)).toHaveLength(12);
    // The bases hang on the factors, and their signs and order on the last bits.
    for (const [name, values] of averages(whole.kept))
      expect(relativeError(parts.kept.get(name)!, values), name).toBeLessThan(name.startsWith('kfac/S/') ? 1e-3 : 1e-5);
    // Control: of other examples they are others.
    const other = await after(3, make(1));
    expect(relativeError(other.kept.get('kfac/S/head/kernel')!, whole.kept.get('kfac/S/head/kernel')!)).toBeGreaterThan(
      0.01,
    );
  });

  test('a layer that is used twice counts its positions in every part', async () => {
    const shared = (): tf.LayersModel => {
      const kernelInitializer = tf.initializers.glorotUniform({ seed: 3 });
      const layer = tf.layers.dense({ name: 'shared', units: 3, activation: 'tanh', kernelInitializer });
      const inputs = tf.input({ shape: [3] });
      return tf.model({ inputs, outputs: layer.apply(layer.apply(inputs)) as tf.SymbolicTensor });
    };
    const of = (accumulate: number) =>
      after(accumulate, kfac({ ...settings, factorEvery: 1, inverseEvery: 1 }), shared(), [
        tf.tensor2d(normals(5, 10, 3)),
        tf.tensor2d(normals(6, 10, 3)),
      ]);
    const [whole, parts] = [await of(1), await of(3)];
    expect(averages(whole.kept)).toHaveLength(2);
    for (const [name, values] of averages(whole.kept))
      expect(relativeError(parts.kept.get(name)!, values), name).toBeLessThan(1e-5);
    expect(relativeError(parts.weights, whole.weights)).toBeLessThan(1e-5);
  });

  test('control: the factors of one part alone are others', async () => {
    const [whole, half] = [
      await after(1),
      await after(1, undefined, undefined, [
        tf.tensor(normals(3, 16, 64).slice(0, 8).flat(), [8, 8, 8, 1]),
        tf.tensor2d(normals(4, 16, 3).slice(0, 8)),
      ]),
    ];
    for (const [name, values] of averages(whole.kept))
      expect(relativeError(half.kept.get(name)!, values), name).toBeGreaterThan(1e-2);
  });
});

await describeEngines('K-FAC under fit whose steps have several batches', () => {
  /** State and weights after two steps of 16 examples. */
  async function fitted(batchSize: number, method: KfacMethod, before: (fit: () => Promise<unknown>) => Promise<void>) {
    const model = toyModel(2);
    const attachment = attach(model, method);
    const optimizer = attachment.optimizer(momentum(), { accumulate: 16 / batchSize });
    model.compile({ optimizer, loss: 'meanSquaredError' });
    const [xs, ys] = [tf.tensor(normals(3, 32, 64).flat(), [32, 8, 8, 1]), tf.tensor2d(normals(4, 32, 3))];
    const fit = () => model.fit(xs, ys, { batchSize, epochs: 1, shuffle: false, verbose: 0 });
    await before(fit);
    await optimizer.prepare();
    await fit();
    const state = attachment.opened.state();
    const kept = new Map([...state.keys()].map((name) => [name, numbersOf(state, name)]));
    optimizer.dispose();
    attachment.detach();
    tf.dispose([xs, ys]);
    return { kept, weights: weightsOf(model) };
  }
  const atOnce = async (): Promise<void> => undefined;

  test.each([
    ['kfac', 8, () => kfac({ ...settings, factorEvery: 1, inverseEvery: 1 })],
    ['kfac', 4, () => kfac({ ...settings, factorEvery: 1, inverseEvery: 1 })],
    ['ekfac', 8, () => ekfac({ ...settings, factorEvery: 1, inverseEvery: 9, examples: 4 })],
  ] as const)('is of the whole: %s, batches of %i', async (_name, size, make) => {
    const [whole, parts] = [await fitted(16, make(), atOnce), await fitted(size, make(), atOnce)];
    expect(averages(whole.kept).length).toBeGreaterThan(7);
    for (const [name, values] of averages(whole.kept))
      expect(relativeError(parts.kept.get(name)!, values), name).toBeLessThan(name.startsWith('kfac/S/') ? 1e-3 : 1e-5);
    expect(relativeError(parts.weights, whole.weights)).toBeLessThan(1e-5);
  });

  test('keeps nothing of a step that was refused', async () => {
    const make = (): KfacMethod => kfac({ ...settings, factorEvery: 1, inverseEvery: 1 });
    const refused = await fitted(16, make(), async (fit) => {
      await expect(fit()).rejects.toThrow(/await optimizer\.prepare\(\)/);
    });
    expect(refused).toEqual(await fitted(16, make(), atOnce));
  });
});
