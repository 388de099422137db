import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Dataset, evaluate, slice, train } from '@frugal/core';
import { describeEngines, expectNoLeak, toyImages, toyModel, trainFor, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { afterEach, describe, expect, test } from 'vitest';
import { sgd } from '../sgd.js';
import { type Curve, mexicanHat, sine } from './data.js';
import { enkf } from './enkf.js';
import type { EnsembleOptions } from './options.js';
import { esmda, inflationCoefficients } from './esmda.js';
import { mean, net, rmse } from '../testing/curves.js';

const curves: [string, (seed: number) => Curve][] = [
  ['sine', (seed) => sine({ seed })],
  ['hat', (seed) => mexicanHat({ seed })],
];
const SEEDS = [0, 1, 2, 3, 4];
const quiet = { log: (): void => undefined };
const noise = { observationNoise: 0.05 };

async function online(model: tf.LayersModel, data: Dataset, options: Partial<EnsembleOptions> = {}, seed = 0) {
  const method = enkf({ ...noise, ...quiet, ...options });
  const run = { epochs: 1, batchSize: 1, seed, progress: false as const };
  return (await train(model, data, { methods: [method], optimizer: [], ...run })).of(method);
}

async function offline(model: tf.LayersModel, data: Dataset, iterations: number, seed = 0) {
  const method = esmda({ ...noise, ...quiet, coefficients: inflationCoefficients(iterations) });
  const run = { epochs: iterations, batchSize: data.length, seed, progress: false as const };
  return (await train(model, data, { methods: [method], optimizer: [], ...run })).of(method);
}

afterEach(() => tf.disposeVariables());

describe.each(curves)('on the %s', (_name, make) => {
  test('EnKF in one pass is below half of the best SGD in one pass', async () => {
    const kalman: number[] = [];
    for (const seed of SEEDS) {
      const { train: data, test: clean } = make(seed);
      kalman.push(rmse(await online(net(seed), data, {}, seed), clean));
    }
    const gradient: number[] = [];
    for (const learningRate of [0.01, 0.03, 0.05, 0.1, 0.15, 0.2]) {
      const errors: number[] = [];
      for (const seed of SEEDS) {
        const { train: data, test: clean } = make(seed);
        const model = net(seed);
        // This loss is e²: half of the rate that suits e²/2.
        const run = { epochs: 1, batchSize: 1, seed, progress: false as const };
        await train(model, data, { optimizer: sgd({ learningRate: learningRate / 2 }), ...run });
        errors.push(Math.sqrt(evaluate(model, clean).loss));
      }
      gradient.push(mean(errors));
    }
    expect(mean(kalman)).toBeLessThan(Math.min(...gradient) / 2);
  });

  test('ES-MDA: more iterations are better, and the ensemble narrows at each', async () => {
    const errors: number[] = [];
    for (const iterations of [1, 4, 10]) {
      const found: number[] = [];
      for (const seed of SEEDS) {
        const { train: data, test: clean } = make(seed);
        const report = await offline(net(seed), data, iterations, seed);
        found.push(rmse(report, clean));
        const { spread, analyses, forwardPasses, forward, warnings } = report;
        expect([analyses, forwardPasses, forward]).toEqual([iterations, iterations * 100 * 100, 'batched']);
        expect(warnings).toEqual([]);
        expect(spread).toHaveLength(iterations + 1);
        spread.slice(1).forEach((s, i) => expect(s).toBeLessThan(spread[i] as number));
      }
      errors.push(mean(found));
    }
    expect(errors).toEqual([...errors].sort((a, b) => b - a));
    expect(errors[2]).toBeLessThan(0.1);
  });

  test('ES-MDA with 10 iterations is below gradient descent with 200, with 1 it is above', async () => {
    const seeds = [0, 1, 2];
    const smoother: number[] = [];
    for (const iterations of [1, 10]) {
      const errors: number[] = [];
      for (const seed of seeds) {
        const { train: data, test: clean } = make(seed);
        errors.push(rmse(await offline(net(seed), data, iterations, seed), clean));
      }
      smoother.push(mean(errors));
    }
    // Of e², so half of those for e²/2. Rates tried from 0.01 to 0.3, five seeds: best 0.094 (0.1) on the sine and 0.092
    // (0.2) on the hat; 0.3 runs away.
    const descent: number[] = [];
    for (const learningRate of [0.1, 0.2]) {
      const errors: number[] = [];
      for (const seed of seeds) {
        const { train: data, test: clean } = make(seed);
        const model = net(seed);
        const run = { epochs: 200, batchSize: 100, seed, progress: false as const };
        await train(model, data, { optimizer: sgd({ learningRate }), ...run });
        errors.push(Math.sqrt(evaluate(model, clean).loss));
      }
      descent.push(mean(errors));
    }
    expect(smoother[1]).toBeLessThan(Math.min(...descent) / 1.5);
    expect(smoother[0]).toBeGreaterThan(Math.min(...descent));
  });

  test('an iid prior has nothing to learn from, and says so', async () => {
    const { train: data, test: clean } = make(0);
    const lines: string[] = [];
    const method = esmda({ ...noise, prior: 'iid', spread: 1, log: (line: string) => void lines.push(line) });
    const run = { epochs: 4, batchSize: 100, progress: false as const };
    const report = (await train(net(0), data, { methods: [method], optimizer: [], ...run })).of(method);
    const centred = await offline(net(0), data, 4);
    expect(rmse(report, clean)).toBeGreaterThan(2 * rmse(centred, clean));
    expect(lines).toHaveLength(1);
    expect(report.warnings).toEqual(lines);
    expect(lines[0]).toMatch(/sampling noise/);
  });
});

await describeEngines('ensemble training', () => {
  test('leaves no tensors, repeats its bits, and holds the mean', async () => {
    const { train: data } = sine();
    const short = slice(data, 0, 20);
    const run = async (): Promise<[number[], number]> => {
      const model = net(1);
      const xs = tf.tensor2d([0, 1, 2], [3, 1]);
      const before = tf.memory().numTensors;
      const { predict } = await online(model, short, { members: 12 });
      const { mean: first, standardDeviation } = predict(xs);
      expect([first.shape, standardDeviation.shape]).toEqual([
        [3, 1],
        [3, 1],
      ]);
      const result = [
        ...first.dataSync(),
        ...standardDeviation.dataSync(),
        ...(model.getWeights()[0]?.dataSync() ?? []),
      ];
      first.dispose();
      standardDeviation.dispose();
      return [result, tf.memory().numTensors - before];
    };
    const [a, leaked] = await run();
    const [b] = await run();
    expect(leaked).toBe(0);
    expect(a).toEqual(b);
    expect(a.every(Number.isFinite)).toBe(true);
  });

  test('classifies: dense, convolutions, and looped with batch normalisation', async () => {
    const data = toyImages(48);
    const flat = (): tf.LayersModel =>
      tf.sequential({
        layers: [
          tf.layers.flatten({ inputShape: [8, 8, 1] }),
          tf.layers.dense({ units: 3, activation: 'softmax', kernelInitializer: tf.initializers.zeros() }),
        ],
      });
    for (const [model, options] of [
      [flat(), { observe: 'logits', members: 60 }],
      [toyModel(), { members: 12, spread: 0.1 }],
      [toyModel(1, { batchNorm: true }), { observe: 'logits', members: 5, spread: 0.1 }],
    ] as const) {
      const method = enkf({ observationNoise: 0.5, ...quiet, ...options });
      const run = { epochs: 1, batchSize: 16, validation: data, progress: false as const };
      const report = await train(model, data, { methods: [method], optimizer: [], ...run });
      expect(report.of(method).forward).toBe(options.members === 5 ? 'loop' : 'batched');
      expect(report.epochs[0]?.accuracy).toBeGreaterThanOrEqual(0);
      if (options.members === 60) expect(report.epochs[0]?.validation?.accuracy).toBeGreaterThan(0.8);
    }
  });
});

test('a run goes on from its checkpoint with the same bits', async () => {
  const data = slice(sine().train, 0, 20);
  const folder = await mkdtemp(join(tmpdir(), 'frugal-ensemble-'));
  const method = enkf({ ...noise, ...quiet, members: 12 });
  const options = { methods: [method], optimizer: [], epochs: 1, batchSize: 1, seed: 3 };
  const run = async (analyses: number, checkpoint?: { folder: string }): Promise<number[]> => {
    const model = net(1);
    const report = await train(model, data, { ...options, progress: false, ...(checkpoint && { checkpoint }) });
    const own = report.of(method);
    expect(own.analyses).toBe(analyses);
    return [...weightsOf(model), ...own.predict(tf.tensor2d([0, 1, 2], [3, 1])).mean.dataSync()];
  };
  const whole = await run(20);
  const stopped = net(1);
  await trainFor(7, stopped, data, { ...options, checkpoint: { folder } });
  expect(weightsOf(stopped)).not.toEqual(whole.slice(0, stopped.countParams()));
  expect(await run(13, { folder })).toEqual(whole);
  // At the end there is nothing left to do, and the ensemble is there to predict.
  expect(await run(0, { folder })).toEqual(whole);
  await rm(folder, { recursive: true });
});

test('the diagnosis tells the priors apart', async () => {
  const data = sine().train;
  const ratios = { centre: [] as number[], iid: [] as number[] };
  for (const prior of ['centre', 'iid'] as const) {
    for (const seed of [...SEEDS, 5, 6, 7, 8, 9]) {
      const method = esmda({ ...noise, ...quiet, prior, spread: prior === 'iid' ? 1 : 0.3, coefficients: [1] });
      const run = { epochs: 1, batchSize: 100, seed, progress: false as const };
      const report = await train(net(seed), data, { methods: [method], optimizer: [], ...run });
      const { correlationRatio, warnings } = report.of(method);
      ratios[prior].push(correlationRatio ?? Number.NaN);
      expect(warnings).toHaveLength(prior === 'iid' ? 1 : 0);
    }
  }
  expect(Math.max(...ratios.iid)).toBeLessThan(1.4);
  expect(Math.min(...ratios.centre)).toBeGreaterThan(1.6);
});

describe('what does not fit', () => {
  const { train: data } = sine({ length: 20 });
  const esmdaRun = (options: { epochs: number; batchSize: number }, coefficients?: number[]) => {
    const method = esmda({ ...noise, ...quiet, members: 5, ...(coefficients && { coefficients }) });
    return train(net(0), data, { methods: [method], optimizer: [], progress: false, ...options });
  };

  test('ES-MDA wants the whole data set, and an epoch for each coefficient', async () => {
    await expect(esmdaRun({ epochs: 3, batchSize: 20 })).rejects.toThrow(/expected 4 steps.* the run has 3/);
    await expect(esmdaRun({ epochs: 1, batchSize: 5 })).rejects.toThrow(/step 1 has other examples.*batchSize/);
    await expect(esmdaRun({ epochs: 2, batchSize: 64 }, [2, 2])).resolves.toBeDefined();
  });

  test('bad options', () => {
    const bad = (options: object) => () => enkf({ ...noise, ...options });
    expect(bad({ member: 3 })).toThrow(/member/);
    expect(bad({ members: 1 })).toThrow(/members/);
    expect(bad({ observationNoise: 0 })).toThrow(/observationNoise/);
    expect(bad({ observationNoise: [] })).toThrow(/observationNoise/);
    expect(bad({ spread: 0 })).toThrow(/spread/);
    expect(bad({ prior: 'zero' })).toThrow(/prior/);
    expect(bad({ observe: 'all' })).toThrow(/observe/);
    // The model is that of the run.
    expect(bad({ model: net(0) })).toThrow(/model/);
    expect(bad({ inflation: { multiplicative: 0 } })).toThrow(/multiplicative/);
    expect(bad({ localisation: { threshold: 2 } })).toThrow(/threshold/);
    expect(() => esmda({ ...noise, coefficients: [1, 1] })).toThrow(/counted 2 times/);
    expect(() => esmda({ ...noise, coefficients: [] })).toThrow(/1\/α/);
  });

  test('targets of another width, and members that run away; nothing is left behind', async () => {
    const [model, wide] = [net(0), { ...data, targets: new Float32Array(40) }];
    const run = { optimizer: [], epochs: 1, batchSize: 4, progress: false as const };
    const method = enkf({ ...noise, ...quiet, members: 5 });
    const far = enkf({ ...noise, ...quiet, members: 5, spread: 1e38 });
    await expectNoLeak(async () => {
      await expect(train(model, wide, { methods: [method], ...run })).rejects.toThrow(/expected targets for 4/);
      await expect(train(model, data, { methods: [far], ...run })).rejects.toThrow(/not finite at step 0/);
    });
  });
});
