import { attach, type Dataset, type Method, type Site, stepper, train, useEngine } from '@frugal/core';
import { expectNoLeak, toyImages, toyModel, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { alignment, alignmentMeter, type MeasuredAlignment } from './alignment.js';
import { bdfa } from './bdfa.js';
import { cdfa } from './cdfa.js';
import { dfa } from './dfa.js';
import { signSymmetry } from './sign-symmetry.js';
import { weightMirror } from './weight-mirror.js';
import { descent, methodOf, mlp, taught, trained } from './testing/models.js';

beforeAll(async () => {
  await useEngine('portable', { log: () => undefined });
});

const head = ({ inputs, targets, shape, classes }: Dataset, n: number): { xs: tf.Tensor; ys: tf.Tensor } => ({
  xs: tf.tensor2d(inputs.slice(0, n * shape[0]!) as Float32Array, [n, shape[0]!]),
  ys: tf.oneHot(tf.tensor1d([...(targets as Uint8Array).slice(0, n)], 'int32'), classes!.length).toFloat(),
});

describe('alignment', () => {
  it('is 1 everywhere for exact products, and leaves the model and the memory as they were', async () => {
    const model = toyModel(1, { batchNorm: true, dropout: 0.3 });
    const xs = tf.randomNormal([6, 8, 8, 1], 0, 1, 'float32', 3);
    const ys = tf.oneHot(tf.tensor1d([0, 1, 2, 0, 1, 2], 'int32'), 3).toFloat();
    const before = weightsOf(model);
    const same = alignment(model, methodOf(), { xs, ys });
    expect(same.map(({ site }) => site)).toEqual(['conv', 'conv2', 'hidden', 'head']);
    for (const { signal, weight } of same) {
      expect(signal).toBeCloseTo(1, 9);
      expect(weight).toBeCloseTo(1, 9);
    }
    await expectNoLeak(() => alignment(model, dfa(), { xs, ys }));
    expect(weightsOf(model)).toEqual(before);
    const fed = alignment(model, dfa(), { xs, ys });
    expect(fed.at(-1)!.weight).toBeCloseTo(1, 6);
    expect(Math.abs(fed[0]!.weight)).toBeLessThan(0.9);
  });

  it('rises while dfa and bdfa learn, far beyond frozen hidden layers', async () => {
    const data = taught(2000, 32, 10);
    const options = { epochs: 12, batchSize: 50, rate: 0.3 };
    const build = () => mlp([32, 64, 64, 10], 'tanh');
    const accuracy = (run: Awaited<ReturnType<typeof trained>>): number => run.report.epochs.at(-1)!.accuracy!;
    const batch = head(data, 200);
    const exact = accuracy(await trained(build(), data, [], options));
    const model = build();
    for (const layer of model.layers.slice(0, -1)) layer.trainable = false;
    const frozen = accuracy(await trained(model, data, [], options));
    for (const make of [() => dfa(), () => bdfa(), () => bdfa({ scale: 0.125 })]) {
      const fed = build();
      const start = alignment(fed, make(), batch, { seed: 1 });
      // A new run has other orders; the feedback is that of the seed.
      await trained(fed, data, [make()], { ...options, epochs: 1 });
      const early = alignment(fed, make(), batch, { seed: 1 });
      const last = await trained(fed, data, [make()], { ...options, epochs: 11 });
      const end = alignment(fed, make(), batch, { seed: 1 });
      for (const layer of [0, 1]) {
        expect(early[layer]!.weight).toBeGreaterThan(0);
        expect(end[layer]!.weight).toBeGreaterThan(start[layer]!.weight + 0.2);
      }
      // Seen: exact 0.83, fed 0.67 to 0.70, frozen 0.58; cosines 0.05 at the start, 0.14 after one epoch, 0.5 at the end.
      expect(accuracy(last)).toBeGreaterThan(frozen + 0.06);
      expect(accuracy(last)).toBeLessThan(exact);
    }
  });
});

const probe = (): { xs: tf.Tensor; ys: tf.Tensor } => ({
  xs: tf.randomNormal([6, 8, 8, 1], 0, 1, 'float32', 3),
  ys: tf.oneHot(tf.tensor1d([0, 1, 2, 0, 1, 2], 'int32'), 3).toFloat(),
});

describe('alignmentMeter', () => {
  it('measures what alignment does, at the weights before the step', async () => {
    const [model, twin, batch] = [toyModel(1), toyModel(1), probe()];
    const method = dfa();
    const meter = alignmentMeter(batch, { every: 2 });
    const run = stepper(model, { methods: [method, meter], optimizer: descent(0.1), seed: 7 });
    const expected = [];
    for (const step of [0, 1, 2]) {
      twin.setWeights(model.getWeights());
      if (step !== 1) expected.push({ step, sites: alignment(twin, dfa(), batch, { seed: 7, step }) });
      await run.step(batch);
    }
    const history = run.of(meter);
    run.dispose();
    expect(history).toEqual(expected);
    expect(history[0]!.sites.map(({ site }) => site)).toEqual(['conv', 'conv2', 'hidden', 'head']);
    expect(history[0]!.sites[0]!.angle).toBeGreaterThan(30);
  });

  it.each<[string, (seen: number[]) => Method]>([
    ['weightMirror, which has state', () => weightMirror({ rate: 0.1 })],
    ['dfa, which measures', (seen) => dfa({ measureEvery: 2, onMeasure: ({ cosine }) => void seen.push(cosine) })],
    ['cdfa, which makes its matrices in the first step', () => cdfa({ feedback: 'forwardProduct' })],
  ])(
    'leaves the run its bits and its counts, with moving averages and dropout, and no tensor: %s',
    async (_title, make) => {
      const data = toyImages(48);
      const batch = probe();
      const run = async (every?: number) => {
        const model = toyModel(1, { batchNorm: true, dropout: 0.3 });
        const seen: number[] = [];
        const method = make(seen);
        const methods = every ? [method, alignmentMeter(batch, { every })] : [method];
        const { weights, report } = await trained(model, data, methods, { epochs: 2, batchSize: 12 });
        model.dispose();
        return { weights, seen, own: report.of(method), counts: report.sites.map(({ done, exact }) => [done, exact]) };
      };
      const plain = await run();
      expect(await expectNoLeak(() => run(1))).toEqual(plain);
      expect(await run(3)).toEqual(plain);
    },
  );

  it('compares all rules of the run together', async () => {
    const [model, twin, batch] = [toyModel(1), toyModel(1), probe()];
    const convs = ({ geometry }: Site): boolean => geometry.slides;
    const methods = [cdfa({ boundary: 'direct' }), signSymmetry({ skip: (site) => !convs(site) })];
    const meter = alignmentMeter(batch);
    const run = stepper(model, { methods: [...methods, meter], optimizer: descent(0.1), seed: 7 });
    await run.step(batch);
    const { sites } = run.of(meter)[0]!;
    run.dispose();
    const alone = methods.map((method) => alignment(twin, method, batch, { seed: 7 }));
    // conv has what both make of it, conv2 what the dense sites send; the head has the gradient itself.
    for (const { [0]: conv } of alone) expect(Math.abs(conv!.weight - sites[0]!.weight)).toBeGreaterThan(0.01);
    expect(sites.slice(1)).toEqual(alone[0]!.slice(1));
  });

  it('leaves the penalties of regularisers out, as alignment does', async () => {
    const data = taught(40, 8, 3);
    const of = async (penalty: number) => {
      const model = mlp([8, 7, 3], 'tanh', 'softmax', penalty);
      const meter = alignmentMeter(head(data, 40));
      const fed = alignment(model, dfa(), head(data, 40), { seed: 1 });
      const { report } = await trained(model, data, [dfa(), meter], { batchSize: 40 });
      const [measured] = report.of(meter);
      expect(measured!.sites).toEqual(fed);
      return fed[0]!.weight;
    };
    expect(await of(10)).toBe(await of(0));
  });

  it('sees the matrices of the first step: one hidden layer with B = W begins with back-propagation', async () => {
    const data = taught(40, 8, 3);
    const measured: MeasuredAlignment[] = [];
    const meter = alignmentMeter(head(data, 40), { every: 2, onMeasure: (one) => void measured.push(one) });
    const methods = [dfa({ feedback: 'forwardProduct' }), meter];
    const { report } = await trained(mlp([8, 7, 3], 'tanh'), data, methods, { epochs: 2, rate: 1 });
    expect(report.of(meter)).toEqual(measured);
    expect(measured.map(({ step }) => step)).toEqual([0, 2]);
    expect(measured[0]!.sites[0]!.weight).toBeCloseTo(1, 6);
    // After two steps W is another, and B is not.
    expect(measured[1]!.sites[0]!.weight).toBeLessThan(0.9999);
  });

  it('is 0° at every site for exact training, and gives the layers back to the run', async () => {
    const [model, batch] = [toyModel(1, { batchNorm: true, dropout: 0.3 }), probe()];
    const meter = alignmentMeter(batch, { every: 1 });
    const options = { methods: [meter], optimizer: descent(0.1), epochs: 1, batchSize: 12, progress: false } as const;
    const history = (await train(model, toyImages(24), options)).of(meter);
    expect(history.map(({ sites }) => sites.length)).toEqual([4, 4]);
    for (const { sites } of history) for (const { weight } of sites) expect(weight).toBeCloseTo(1, 9);
    attach(model).detach();
  });

  it('refuses wrong options, and fit, which cannot make its passes', () => {
    const batch = probe();
    expect(() => alignmentMeter(batch, { every: 0 })).toThrow(/alignmentMeter: expected every/);
    expect(() => alignmentMeter(batch, { step: 1 } as object)).toThrow(/alignmentMeter: expected options/);
    const attachment = attach(toyModel(1), alignmentMeter(batch));
    expect(() => attachment.optimizer(descent())).toThrow(/^alignmentMeter makes further passes/);
    attachment.detach();
  });

  it('sees dfa turn from 90° to less than 60° in both hidden layers of 32-128-128-10', async () => {
    // Seconds by native or wasm, half a minute in JavaScript.
    await useEngine('native', { log: () => undefined, threads: 1 }).catch(() =>
      useEngine('portable', { log: () => undefined }),
    );
    const data = taught(4000, 32, 10);
    const model = mlp([32, 128, 128, 10], 'tanh');
    const meter = alignmentMeter(head(data, 500), { every: 319 });
    const { report } = await trained(model, data, [dfa(), meter], { epochs: 40, batchSize: 50, rate: 0.3 });
    const history = report.of(meter);
    const angles = history.map(({ sites }) => sites.map(({ angle }) => angle));
    expect(history.map(({ step }) => step)).toEqual(Array.from({ length: 11 }, (_, i) => 319 * i));
    // Seen: 91.6° and 91.5° at the start, 71° and 66° after four epochs, 50° and 39° at the end.
    for (const layer of [0, 1]) {
      expect(Math.abs(angles[0]![layer]! - 90)).toBeLessThan(6);
      expect(angles[1]![layer]).toBeLessThan(80);
      expect(angles.at(-1)![layer]).toBeLessThan(60);
    }
    // The upper layer aligns better; the output layer has the gradient itself.
    expect(angles.at(-1)![1]).toBeLessThan(angles.at(-1)![0]!);
    for (const at of angles) expect(at[2]).toBeLessThan(0.1);
  });
});
