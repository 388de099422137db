import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach } from './attach.js';
import type { Dataset } from './data.js';
import { FrugalError } from './errors.js';
import { evaluate } from './evaluate.js';
import { meanSquaredError } from './loss.js';
import type { Method } from './method.js';
import { jsonLines, bar } from './progress.js';
import { eachGradient, methodOf, toyAverage } from './testing/descriptions.js';
import { describeEngines, expectNoLeak, relativeError } from './testing/engines.js';
import { meanGradient, twinRanks } from './testing/ranks.js';
import { toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import type { TrainOptions } from './run.js';
import { train } from './train.js';

const data = toyImages();
const base: Omit<TrainOptions, 'optimizer'> = { epochs: 3, batchSize: 16, seed: 1, progress: false };
const run = (model: tf.LayersModel, options: Partial<TrainOptions> = {}) =>
  train(model, data, { ...base, optimizer: toySgd(), ...options });

await describeEngines('train', () => {
  it('learns, reports every epoch, and gives the same bits for the same seed', async () => {
    const weights: number[][] = [];
    for (const seed of [1, 1, 2]) {
      const model = toyModel(1, { batchNorm: true, dropout: 0.2 });
      const report = await run(model, { seed, validation: data, epochs: 4 });
      expect(report.epochs.map(({ epoch }) => epoch)).toEqual([1, 2, 3, 4]);
      expect(report.epochs.at(-1)!.loss).toBeLessThan(0.3);
      expect(report.steps).toBe(24);
      expect(report.epochs[0]!.hyperparameters).toEqual({ learningRate: 0.1 });
      weights.push(weightsOf(model));
      model.dispose();
    }
    expect(weights[1]).toEqual(weights[0]);
    expect(weights[2]).not.toEqual(weights[0]);
  });

  it('makes the same steps as model.fit with the stock momentum optimizer', async () => {
    const [ours, stock] = [toyModel(4), toyModel(4)];
    const xs = tf.tensor(
      Float32Array.from(data.inputs, (v) => (v - 100) / 60),
      [96, 8, 8, 1],
    );
    const ys = tf.oneHot(tf.tensor1d(data.targets, 'int32'), 3);
    const attachment = attach(ours);
    ours.compile({ optimizer: attachment.optimizer(toySgd(0.05)), loss: 'categoricalCrossentropy' });
    stock.compile({ optimizer: tf.train.momentum(0.05, 0.9), loss: 'categoricalCrossentropy' });
    const fit = { epochs: 2, batchSize: 16, shuffle: false, verbose: 0 as const };
    const [a, b] = [await ours.fit(xs, ys, fit), await stock.fit(xs, ys, fit)];
    // 12 steps of float32 in another order of summation.
    expect(relativeError(a.history['loss'] as number[], b.history['loss'] as number[])).toBeLessThan(1e-4);
    expect(relativeError(weightsOf(ours), weightsOf(stock))).toBeLessThan(1e-3);
    attachment.detach();
  });

  it('adds the penalties of regularisers, as fit does', async () => {
    const build = (): tf.Sequential =>
      tf.sequential({
        layers: [
          tf.layers.flatten({ inputShape: [8, 8, 1] }),
          tf.layers.dense({
            units: 3,
            activation: 'softmax',
            kernelInitializer: tf.initializers.glorotUniform({ seed: 3 }),
            kernelRegularizer: tf.regularizers.l2({ l2: 0.5 }),
          }),
        ],
      });
    const [ours, stock] = [build(), build()];
    const whole = { ...data, length: 96 };
    await train(ours, whole, { epochs: 3, batchSize: 96, optimizer: toySgd(0.01), progress: false });
    const xs = tf.tensor(
      Float32Array.from(data.inputs, (v) => (v - 100) / 60),
      [96, 8, 8, 1],
    );
    const ys = tf.oneHot(tf.tensor1d(data.targets, 'int32'), 3);
    stock.compile({ optimizer: tf.train.momentum(0.01, 0.9), loss: 'categoricalCrossentropy' });
    await stock.fit(xs, ys, { epochs: 3, batchSize: 96, shuffle: false, verbose: 0 });
    // Three steps in float32, the loss by two formulas.
    expect(relativeError(weightsOf(ours), weightsOf(stock))).toBeLessThan(1e-4);
    tf.dispose([xs, ys]);
  });

  it('leaves no tensor behind, in train and in fit', async () => {
    const model = toyModel(5, { batchNorm: true, dropout: 0.1 });
    await run(model, { epochs: 1 });
    await expectNoLeak(() => run(model, { epochs: 2, validation: data }));
    const xs = tf.ones([32, 8, 8, 1]);
    const ys = tf.ones([32, 3]);
    const attachment = attach(model);
    model.compile({ optimizer: attachment.optimizer(toySgd(0.01)), loss: 'meanSquaredError' });
    await model.fit(xs, ys, { epochs: 1, verbose: 0 });
    await expectNoLeak(() => model.fit(xs, ys, { epochs: 3, verbose: 0 }));
    attachment.detach();
  });
});

describe('train on any engine', () => {
  let folder = '';
  beforeAll(async () => {
    await tf.setBackend('cpu');
    folder = await mkdtemp(join(tmpdir(), 'frugal-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('evaluates as Keras does', async () => {
    const model = toyModel(2);
    const { loss, accuracy } = evaluate(model, data, { batchSize: 40 });
    model.compile({ optimizer: 'sgd', loss: 'categoricalCrossentropy', metrics: ['accuracy'] });
    const xs = tf.tensor(
      Float32Array.from(data.inputs, (v) => (v - 100) / 60),
      [96, 8, 8, 1],
    );
    const [l, a] = (model.evaluate(xs, tf.oneHot(tf.tensor1d(data.targets, 'int32'), 3)) as tf.Scalar[]).map(
      (s) => s.dataSync()[0]!,
    );
    expect(loss).toBeCloseTo(l!, 4);
    expect(accuracy).toBeCloseTo(a!, 6);
  });

  it('fits target vectors by squared error', async () => {
    const line: Dataset = {
      name: 'line',
      origin: 'made',
      length: 40,
      shape: [1],
      inputs: Float32Array.from({ length: 40 }, (_, i) => i / 20 - 1),
      targets: Float32Array.from({ length: 40 }, (_, i) => 3 * (i / 20 - 1) + 1),
    };
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 1, inputShape: [1] })] });
    const report = await train(model, line, { epochs: 40, batchSize: 8, optimizer: toySgd(0.05), progress: false });
    expect(report.epochs.at(-1)!.loss).toBeLessThan(1e-4);
    expect(report.epochs[0]).not.toHaveProperty('accuracy');
  });

  it('resumes from a checkpoint with the bits of an uninterrupted run, from the middle of an epoch too', async () => {
    const fresh = (): tf.LayersModel => toyModel(7, { batchNorm: true, dropout: 0.2 });
    const whole = fresh();
    const expected = await run(whole);
    for (const stopAt of [2, 6, 8, 17]) {
      const options = { checkpoint: { folder: join(folder, `stop-${stopAt}`) } };
      const controller = new AbortController();
      const first = run(fresh(), {
        ...options,
        signal: controller.signal,
        progress: ({ kind, epoch, batch }) => {
          if (kind === 'step' && (epoch - 1) * 6 + batch === stopAt) controller.abort();
        },
      });
      await expect(first).rejects.toSatisfy((error) => FrugalError.is(error, 'ABORTED'));
      const model = fresh();
      const report = await run(model, options);
      expect(weightsOf(model)).toEqual(weightsOf(whole));
      expect(report.epochs.map(({ loss }) => loss)).toEqual(expected.epochs.map(({ loss }) => loss));
    }
  });

  it('passes over a damaged checkpoint for the one before, and keeps only as many as asked', async () => {
    const checkpoint = { folder: join(folder, 'damaged'), keep: 3 };
    const model = toyModel(8);
    await run(model, { checkpoint });
    const names = (await readdir(checkpoint.folder)).sort();
    expect(names).toEqual(['step-0000000006', 'step-0000000012', 'step-0000000018']);
    const file = join(checkpoint.folder, names[2]!, 'state.safetensors');
    const bytes = await readFile(file);
    bytes[bytes.length - 1]! ^= 1;
    await writeFile(file, bytes);
    const resumed = toyModel(9);
    const report = await run(resumed, { checkpoint });
    expect(report.steps).toBe(18);
    expect(weightsOf(resumed)).toEqual(weightsOf(model));
  });

  it('refuses a checkpoint of another model, seed or batch size', async () => {
    const checkpoint = { folder: join(folder, 'other') };
    await run(toyModel(1), { checkpoint });
    await expect(run(toyModel(1), { checkpoint, seed: 9 })).rejects.toThrow('made with seed 1, this run has 9');
    await expect(run(toyModel(1, { batchNorm: true }), { checkpoint })).rejects.toThrow(/holds no|has shape/);
  });

  it('stops at a loss that is not finite, before any weight moves, and keeps the last good state', async () => {
    const checkpoint = { folder: join(folder, 'nan') };
    const model = toyModel(3);
    const weights = weightsOf(model);
    const poisoned: Dataset = {
      ...data,
      inputs: Float32Array.from(data.inputs),
      normalize: { mean: [0], std: [1e-38] },
    };
    await expect(train(model, poisoned, { ...base, optimizer: toySgd(), checkpoint })).rejects.toThrow(
      /^exact: the loss is (NaN|Infinity) at step 0; all weights are still finite\. The last checkpoint/,
    );
    expect(weightsOf(model)).toEqual(weights);
    const exploding = run(toyModel(3), { optimizer: toySgd(1e30), checkpoint });
    await expect(exploding).rejects.toSatisfy((error) => FrugalError.is(error, 'NON_FINITE'));
    expect(await readdir(checkpoint.folder)).toEqual([]);
  });

  it('stops when the last update diverges, which no later loss would tell', async () => {
    const options = { epochs: 1, batchSize: 96, optimizer: toySgd(1e300), progress: false as const };
    await expect(
      train(toyModel(3), { ...data, inputs: data.inputs.map((v) => v) }, { ...options, loss: meanSquaredError }),
    ).rejects.toThrow(/after the last step, 0, the weight .* is not finite/);
  });

  it('refuses another data set on resume, a folder it cannot write, bad checkpoint options and bad validation data', async () => {
    const checkpoint = { folder: join(folder, 'half') };
    await run(toyModel(1), { checkpoint, epochs: 1 });
    const half = { ...data, length: 48, inputs: data.inputs.slice(0, 48 * 64), targets: data.targets.slice(0, 48) };
    await expect(train(toyModel(1), half, { ...base, epochs: 1, optimizer: toySgd(), checkpoint })).rejects.toThrow(
      'examples 96, this run has 48',
    );
    const file = join(folder, 'file');
    await writeFile(file, '');
    await expect(run(toyModel(1), { checkpoint: { folder: file } })).rejects.toThrow('cannot be written');
    await expect(run(toyModel(1), { checkpoint: { folder, everyStep: 1 } as never })).rejects.toThrow('everyStep');
    await expect(run(toyModel(1), { checkpoint: { folder, keep: 0 } })).rejects.toThrow('keep');
    await expect(run(toyModel(1), { validation: { ...data, targets: data.targets.map(() => 7) } })).rejects.toThrow(
      'a label is not below',
    );
  });

  it('resumes a model whose layers have automatic names, built a second time', async () => {
    const build = (): tf.Sequential =>
      tf.sequential({
        layers: [tf.layers.flatten({ inputShape: [8, 8, 1] }), tf.layers.dense({ units: 3, activation: 'softmax' })],
      });
    const checkpoint = { folder: join(folder, 'automatic') };
    const first = build();
    await run(first, { checkpoint });
    const second = build();
    await run(second, { checkpoint });
    expect(weightsOf(second)).toEqual(weightsOf(first));
  });

  it('measures the same loss in training and evaluation wherever the softmax is, and refuses what comes after it', async () => {
    const still = (model: tf.LayersModel): Promise<number[]> =>
      train(model, data, { epochs: 1, batchSize: 96, optimizer: toySgd(0), validation: data, progress: false }).then(
        ({ epochs: [e] }) => [e!.loss, e!.validation!.loss],
      );
    const dense = (units: number, options: object = {}): tf.layers.Layer =>
      tf.layers.dense({ units, activation: 'softmax', ...options });
    const flat = tf.layers.flatten({ inputShape: [8, 8, 1] });
    const nested = tf.sequential({
      layers: [
        tf.layers.flatten({ inputShape: [8, 8, 1] }),
        tf.sequential({ layers: [dense(3, { inputShape: [64] })] }),
      ],
    });
    for (const model of [nested, tf.sequential({ layers: [flat, dense(5), dense(3)] })]) {
      const [training, validation] = await still(model);
      expect(training).toBeCloseTo(validation!, 5);
    }
    const late = tf.sequential({
      layers: [tf.layers.flatten({ inputShape: [8, 8, 1] }), dense(3), tf.layers.reshape({ targetShape: [3] })],
    });
    await expect(still(late)).rejects.toThrow('comes after the softmax');
  });

  it('gives the model back when a step throws', async () => {
    const broken = methodOf({
      rule: {
        name: 'broken',
        bias: 'biased',
        forward: () => {
          throw new Error('from the rule');
        },
      },
    });
    const model = toyModel(3);
    await expect(run(model, { methods: [broken] })).rejects.toThrow('from the rule');
    attach(model).detach();
  });

  it('runs a whole-step method in place of back-propagation', async () => {
    const seen: number[] = [];
    const whole: Method = {
      name: 'whole',
      source: 'test',
      open: ({ params }) => ({
        step: {
          step: ({ batch, scope }) => {
            seen.push(scope.clock.step);
            tf.tidy(() => params[0]!.value.assign(tf.zerosLike(params[0]!.value)));
            return Promise.resolve({ loss: batch.xs.shape[0]!, correct: 1 });
          },
        },
      }),
    };
    const model = toyModel(3);
    const report = await run(model, { methods: [whole], optimizer: [], epochs: 1 });
    expect(seen).toEqual([0, 1, 2, 3, 4, 5]);
    expect(report.epochs[0]!.loss).toBe(16);
    expect(
      model
        .getWeights()[0]!
        .dataSync()
        .every((v) => v === 0),
    ).toBe(true);
    // What follows the weights has something to do beside it; what moves them or changes gradients has not.
    const average = toyAverage();
    const averaged = await run(toyModel(3), { methods: [whole], optimizer: [average], epochs: 1 });
    expect(averaged.of(average)).toBe(6);
    const half = eachGradient('half', (g) => tf.mul(g, 0.5));
    for (const optimizer of [toySgd(), [half, toySgd()], [half], [toySgd(), average]]) {
      const { name } = [optimizer].flat()[0]!;
      await expect(run(toyModel(3), { methods: [whole], optimizer, epochs: 1 })).rejects.toThrow(
        `whole makes the whole step: expected optimizer: [] beside it but received ${name}, which would do nothing.`,
      );
    }
  });

  it('exchanges updates with other ranks: a mean over equal ranks changes nothing', async () => {
    const mean = meanGradient(({ size }) => 1 / size);
    const [alone, together] = [toyModel(6), toyModel(6)];
    await run(alone);
    await run(together, { optimizer: [mean, toySgd()], communicator: twinRanks(2), division: 'data' });
    expect(weightsOf(together)).toEqual(weightsOf(alone));
    await expect(run(toyModel(6), { optimizer: [mean, toySgd()] })).rejects.toThrow('pass { communicator }');
  });

  it('refuses bad options before the first step', async () => {
    const model = toyModel();
    await expect(run(model, { epochs: 0 })).rejects.toThrow('epochs');
    await expect(run(model, { batchSize: 0.5 })).rejects.toThrow('batchSize');
    await expect(run(model, { bachSize: 5 } as never)).rejects.toThrow('bachSize');
    const squashed = tf.sequential({
      layers: [
        tf.layers.flatten({ inputShape: [8, 8, 1] }),
        tf.layers.dense({ name: 's', units: 3, activation: 'sigmoid' }),
      ],
    });
    await expect(run(squashed)).rejects.toThrow('s ends in sigmoid');
    await run(squashed, { loss: meanSquaredError, epochs: 1 });
  });

  it('draws a bar on a terminal and writes JSON lines elsewhere', async () => {
    let text = '';
    const stream = { isTTY: true, columns: 200, write: (t: string) => (text += t) };
    await run(toyModel(), { epochs: 1, validation: data, progress: bar('toy', stream) });
    expect(text).toMatch(/toy {2}epoch 1\/1 █{24} .* s {2}loss 0\.\d+ {2}accuracy \d+\.\d\d % {2}test 0\.\d+/);
    expect(text.endsWith('\n')).toBe(true);
    text = '';
    await run(toyModel(), { epochs: 2, progress: jsonLines('toy', stream) });
    const lines = text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.map((line) => [line['run'], line['epoch'], line['batches']])).toEqual([
      ['toy', 1, 6],
      ['toy', 2, 6],
    ]);
  });
});
