import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FrugalError } from '@frugal/core';
import { trainFor } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { dfa } from './dfa.js';
import { descent, mlp, taught, trained } from './testing/models.js';

const dense = (name: string, units: number, activation: 'tanh' | 'softmax' = 'tanh') =>
  tf.layers.dense({ name, units, activation, kernelInitializer: tf.initializers.glorotUniform({ seed: units }) });

type Between = (x: tf.SymbolicTensor, h: tf.SymbolicTensor) => tf.SymbolicTensor;

/** Dense a → whatever `between` makes of a's input and result → dense b → dense c, all 8 wide. */
function build(between: Between): tf.LayersModel {
  const input = tf.input({ shape: [8] });
  const first = dense('first', 8).apply(input) as tf.SymbolicTensor;
  const a = dense('a', 8).apply(first) as tf.SymbolicTensor;
  const b = dense('b', 8).apply(between(first, a));
  return tf.model({ inputs: input, outputs: dense('c', 3, 'softmax').apply(b) as tf.SymbolicTensor });
}

const through =
  (...layers: tf.layers.Layer[]): Between =>
  (_x, h) =>
    layers.reduce((t, layer) => layer.apply(t) as tf.SymbolicTensor, h);

const product = () => dfa({ feedback: 'forwardProduct' });

describe('forwardProduct', () => {
  it.each<[string, Between, RegExp]>([
    [
      'a residual network of equal widths',
      (x, h) => tf.layers.add().apply([x, h]) as tf.SymbolicTensor,
      /site b takes its input from a join/,
    ],
    ['a branch', (x) => x, /site b takes its input from a join, a branch/],
    [
      'batch normalisation',
      through(tf.layers.batchNormalization()),
      /site b takes its input through BatchNormalization/,
    ],
    [
      'layer normalisation',
      through(tf.layers.layerNormalization()),
      /site b takes its input through LayerNormalization/,
    ],
  ])('refuses %s', async (_title, between, message) => {
    const run = trained(build(between), taught(20, 8, 3), [product()]);
    await expect(run).rejects.toSatisfy(
      (error) => FrugalError.is(error, 'CONFIG') && message.test((error as Error).message),
    );
  });

  it('refuses a dense layer that is not trained, by name', async () => {
    const model = build(through());
    model.getLayer('a').trainable = false;
    await expect(trained(model, taught(20, 8, 3), [product()])).rejects.toThrow(/site b takes its input from a, which/);
  });

  it('takes activations and dropout between dense layers: the matrices are those of the weights', async () => {
    const model = build(through(tf.layers.dropout({ rate: 0.5 }), tf.layers.activation({ activation: 'relu' })));
    const [w, , v, , u] = model.getWeights().slice(2) as tf.Tensor2D[];
    const expected = tf.matMul(v!, u!).dataSync();
    const chain = product();
    const state: number[][] = [];
    const spy = {
      ...descent(0.1),
      name: 'spy',
      update: (updates: ReadonlyMap<string, tf.Tensor>) => {
        state.push(...[...chain.transforms![0]!.state().values()].map((value) => [...value.dataSync()]));
        return new Map(updates);
      },
    };
    await trained(model, taught(20, 8, 3), [chain, { name: 'spy', source: 'test', transforms: [spy] }]);
    // From the output down: c, b, a, first. B of b = W_b·W_c; B of a = W_a·W_b·W_c.
    expect(w!.shape).toEqual([8, 8]);
    expect(state).toHaveLength(4);
    expect(state[1]).toEqual([...expected]);
  });

  it('resumes from a checkpoint with the same bits, which matrices of the later weights would not give', async () => {
    const folders = [0, 1, 2].map(() => mkdtempSync(join(tmpdir(), 'frugal-product-')));
    const data = taught(80, 8, 3);
    const run = async (folder: string, method = product(), stopAt = Infinity): Promise<Float32Array[]> => {
      const model = mlp([8, 7, 6, 3], 'tanh');
      const options = { methods: [method], optimizer: descent(0.3), epochs: 2, batchSize: 20, seed: 1 };
      await trainFor(stopAt, model, data, { ...options, checkpoint: { folder } });
      return model.getWeights().map((weight) => Float32Array.from(weight.dataSync()));
    };
    const whole = await run(folders[0]!);
    const half = await run(folders[1]!, product(), 5);
    expect(half).not.toEqual(whole);
    cpSync(folders[1]!, folders[2]!, { recursive: true });
    expect(await run(folders[1]!)).toEqual(whole);
    // The control: without the link nothing is restored, and the products are those of the later weights.
    expect(await run(folders[2]!, { ...product(), transforms: [] })).not.toEqual(whole);
    for (const folder of folders) rmSync(folder, { recursive: true });
  });
});
