import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { attach, type Attachment, FrugalError, type Method, stepper } from '@frugal/core';
import { expectNoLeak, meanGradient, runRanks, trainFor } from '@frugal/core/testing';
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

const matricesOf = ({ opened }: Attachment): number[][] =>
  [...opened.state().values()].map((value) => [...(value as tf.Variable).dataSync()]);

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
    const model = build(between);
    const run = trained(model, taught(20, 8, 3), [product()]);
    await expect(run).rejects.toSatisfy(
      (error) => FrugalError.is(error, 'CONFIG') && message.test((error as Error).message),
    );
    const attachment = attach(model, product());
    await expectNoLeak(() => expect(() => attachment.opened.state()).toThrow(message));
    attachment.detach();
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
    const run = stepper(model, { methods: [product()], optimizer: descent(0.1), seed: 1 });
    const batch = { xs: tf.ones([2, 8]), ys: tf.oneHot(tf.tensor1d([0, 1], 'int32'), 3).toFloat() };
    for (const step of [0, 1]) {
      await run.step(batch);
      const state = matricesOf(run.attachment);
      // From the output down: c, b, a, first. B of b = W_b·W_c; B of a = W_a·W_b·W_c.
      expect(w!.shape).toEqual([8, 8]);
      expect(state).toHaveLength(4);
      expect(state[1], `after step ${step}`).toEqual([...expected]);
    }
    run.dispose();
  });

  it('multiplies the weights of the first step, which ranks have from rank 0', async () => {
    const batch = { xs: tf.ones([2, 4]), ys: tf.oneHot(tf.tensor1d([0, 1], 'int32'), 2).toFloat() };
    const models = [0, 1].map((rank) => {
      const model = mlp([4, 3, 2], 'tanh');
      model.setWeights(model.getWeights().map((weight) => tf.add(weight, rank)));
      return model;
    });
    const [a, , b] = models[0]!.getWeights().map((weight) => weight.clone()) as tf.Tensor2D[];
    const states = await runRanks(2, async (communicator) => {
      const optimizer = [meanGradient(), descent(0.1)];
      const options = { methods: [product()], optimizer, communicator, seed: 1 };
      const run = stepper(models[communicator.rank]!, options);
      await run.step(batch);
      const state = matricesOf(run.attachment);
      run.dispose();
      return state;
    });
    const expected = [[...b!.dataSync()], [...tf.matMul(a!, b!).dataSync()]];
    expect(states).toEqual([expected, expected]);
  });

  it('resumes from a checkpoint with the same bits, which matrices of the later weights would not give', async () => {
    const folders = [0, 1, 2].map(() => mkdtempSync(join(tmpdir(), 'frugal-product-')));
    const data = taught(80, 8, 3);
    const run = async (folder: string, method: Method = product(), stopAt = Infinity): Promise<Float32Array[]> => {
      const model = mlp([8, 7, 6, 3], 'tanh');
      const options = { methods: [method], optimizer: descent(0.3), epochs: 2, batchSize: 20, seed: 1 };
      await trainFor(stopAt, model, data, { ...options, checkpoint: { folder } });
      return model.getWeights().map((weight) => Float32Array.from(weight.dataSync()));
    };
    const whole = await run(folders[0]!);
    const half = await run(folders[1]!, product(), 5);
    expect(half).not.toEqual(whole);
    expect(await run(folders[1]!)).toEqual(whole);
    // The control: without state nothing is restored, and the products are those of the later weights.
    const kept = product();
    const forgetful: Method = { ...kept, open: (context) => ({ ...kept.open(context), state: undefined }) };
    expect(await run(folders[2]!, forgetful, 5)).toEqual(half);
    expect(await run(folders[2]!, forgetful)).not.toEqual(whole);
    for (const folder of folders) rmSync(folder, { recursive: true });
  });
});
