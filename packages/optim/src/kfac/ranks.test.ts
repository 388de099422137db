import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Communicator, type GradientLink, type Link, train, type TrainOptions } from '@frugal/core';
import {
  describeEngines,
  expectNoLeak,
  meanGradient,
  relativeError,
  runRanks,
  toyImages,
  weightsOf,
} from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { sgd } from '../sgd.js';
import { type Distribution, kfac, type KfacMethod, type KfacOptions, type KfacReport } from './index.js';

// Batches of 16, 16, 16 and 2: parts of ranks differ, and of four ranks two have none of the last.
const data = toyImages(50);
const options = { damping: 0.1, factorEvery: 1, inverseEvery: 2 } as const;

/** A convolution and two dense layers. */
function network(seed: number): tf.LayersModel {
  const kernelInitializer = (k: number) => tf.initializers.glorotUniform({ seed: 10 * seed + k });
  return tf.sequential({
    layers: [
      tf.layers.conv2d({
        inputShape: [8, 8, 1],
        filters: 2,
        kernelSize: 3,
        strides: 3,
        activation: 'relu',
        kernelInitializer: kernelInitializer(1),
      }),
      tf.layers.flatten(),
      tf.layers.dense({ units: 12, activation: 'tanh', kernelInitializer: kernelInitializer(2) }),
      tf.layers.dense({ units: 3, activation: 'softmax', kernelInitializer: kernelInitializer(3) }),
    ],
  });
}

interface Trained {
  readonly weights: number[];
  readonly report: KfacReport;
}

interface How {
  readonly method?: KfacOptions;
  readonly run?: (rank: number) => Partial<TrainOptions>;
  /** The chain, where it is not sum, K-FAC, SGD. */
  readonly chain?: (method: KfacMethod) => Link[];
  readonly model?: () => tf.LayersModel;
}

async function trainOne(communicator: Communicator | undefined, how: How): Promise<Trained> {
  const { method: given, run, model: make = () => network(communicator?.rank === 1 ? 8 : 7) } = how;
  const method = kfac({ ...options, ...given });
  const model = make();
  const last = sgd({ learningRate: 0.1, momentum: 0.9 });
  const chain = how.chain?.(method) ?? [...(communicator ? [meanGradient()] : []), method.link];
  // The chain has the link, or one in its place.
  const bare = { ...method, links: [] };
  const report = await train(model, data, {
    methods: [bare],
    optimizer: [...chain, last],
    epochs: 2,
    batchSize: 16,
    progress: false,
    ...(communicator && { communicator }),
    ...run?.(communicator?.rank ?? 0),
  });
  const weights = weightsOf(model);
  model.dispose();
  return { weights, report: report.of(bare) };
}

const alone = (how: How = {}): Promise<Trained> => trainOne(undefined, how);
const together = (size: number, distribution: Distribution, how: How = {}): Promise<Trained[]> =>
  runRanks(size, (communicator) => trainOne(communicator, { ...how, method: { ...how.method, distribution } }));

// The middle layer is the heaviest, so the order of columns is not that of layers.
const sizes = [10, 2, 9, 12, 13, 3];
const total = (f: (n: number) => number): number => sizes.reduce((sum, n) => sum + f(n), 0);
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
/** 2 epochs of 4 batches. */
const [STEPS, DECOMPOSITIONS] = [8, 4];
const GRADIENTS = 10 * 2 + 9 * 12 + 13 * 3;

await describeEngines('K-FAC over ranks', () => {
  test.each([
    [2, 'communication-optimal'],
    [3, 'communication-optimal'],
    [4, 'communication-optimal'],
    [2, 'layer-wise'],
    [3, 'layer-wise'],
    [4, 'layer-wise'],
    [4, 0.5],
  ] as const)('%i ranks, %s: the step of one rank with the whole batch', async (size, strategy) => {
    const one = await alone();
    const ranks = await together(size, { strategy });
    for (const { weights } of ranks) {
      expect(relativeError(weights, one.weights)).toBeLessThan(1e-5);
      expect(weights).toEqual(ranks[0]!.weights);
    }
    const reports = ranks.map(({ report }) => report);
    const workers = strategy === 'layer-wise' ? 1 : strategy === 0.5 ? 2 : size;
    // Every rank has all factors, of triangles; a layer's decompositions are with its gradient workers.
    for (const { sent } of reports) expect(sent.factors).toBe(STEPS * 4 * total((n) => (n * (n + 1)) / 2));
    expect(sum(reports.map((r) => r.decompositionBytes))).toBe(workers * 4 * total((n) => n * n + n));
    const travelling = workers > 1 ? DECOMPOSITIONS * 4 * total((n) => n * n + n) : 0;
    expect(sum(reports.map(({ sent }) => sent.decompositions))).toBe(travelling);
    // Gradients travel along each row of size / workers ranks.
    const rows = workers < size ? workers : 0;
    expect(sum(reports.map(({ sent }) => sent.gradients))).toBe(rows * STEPS * 4 * GRADIENTS);
    for (const report of reports) {
      expect([report.updates, report.decompositions, report.factorBytes]).toEqual([
        one.report.updates,
        one.report.decompositions,
        one.report.factorBytes,
      ]);
    }
  });

  test('layer-wise, no rank holds the decompositions of all', async () => {
    const [whole] = await together(2, {});
    for (const { report } of await together(2, { strategy: 'layer-wise' })) {
      expect(report.decompositionBytes).toBeLessThan(whole!.report.decompositionBytes);
      expect(report.decompositionBytes).toBeGreaterThan(0);
    }
  });

  test.each(['communication-optimal', 'layer-wise'] as const)('inverse form and overlap, %s', async (strategy) => {
    const method = { form: 'inverse', overlap: true, factorEvery: 2, inverseEvery: 4 } as const;
    const one = await alone({ method });
    for (const { weights } of await together(3, { strategy }, { method })) {
      expect(relativeError(weights, one.weights)).toBeLessThan(1e-5);
    }
  });

  test('more ranks than factors, with overlap', async () => {
    const model = (): tf.LayersModel =>
      tf.sequential({
        layers: [
          tf.layers.flatten({ inputShape: [8, 8, 1] }),
          tf.layers.dense({ units: 3, kernelInitializer: tf.initializers.glorotUniform({ seed: 5 }) }),
        ],
      });
    const how = { model, method: { overlap: true, factorEvery: 2, inverseEvery: 4 } } as const;
    const one = await alone(how);
    for (const strategy of ['communication-optimal', 'layer-wise', 0.5] as const) {
      for (const { weights } of await together(4, { strategy }, how)) {
        expect(relativeError(weights, one.weights)).toBeLessThan(1e-5);
      }
    }
  });

  test('control: factors of each rank alone make another step, and another on each rank', async () => {
    const one = await alone();
    const local = await runRanks(2, (communicator) =>
      trainOne(communicator, { chain: (method) => [meanGradient(), method.link] }),
    );
    expect(relativeError(local[0]!.weights, one.weights)).toBeGreaterThan(1e-2);
    expect(relativeError(local[0]!.weights, local[1]!.weights)).toBeGreaterThan(1e-2);
  });

  test('control: factors weighted without the shares of ranks make another step', async () => {
    const one = await alone();
    const by = (share: (own: number, size: number) => number): Promise<Trained[]> =>
      runRanks(3, (communicator) =>
        trainOne(communicator, {
          method: { distribution: {} },
          chain: ({ link }) => [meanGradient(), withShare(link, share)],
        }),
      );
    const [right, equal] = [await by((own) => own), await by((_own, size) => 1 / size)];
    expect(relativeError(right[0]!.weights, one.weights)).toBeLessThan(1e-5);
    expect(relativeError(equal[0]!.weights, one.weights)).toBeGreaterThan(1e-3);
  });

  test('a layer without a gradient: its weights stay, and the others are where they belong', async () => {
    const without = (): GradientLink => ({
      kind: 'gradient',
      name: 'without',
      open: () => ({ transform: (gradients) => new Map([...gradients].filter((_, i) => i < 2 || i > 3)) }),
    });
    const one = await alone({ chain: ({ link }) => [without(), link] });
    const ranks = await together(
      3,
      { strategy: 'layer-wise' },
      { chain: ({ link }) => [meanGradient(), without(), link] },
    );
    for (const { weights } of ranks) expect(relativeError(weights, one.weights)).toBeLessThan(1e-5);
    expect(relativeError(one.weights, (await alone()).weights)).toBeGreaterThan(1e-3);
  });

  test('no tensors are left', async () => {
    await expectNoLeak(() => together(2, { strategy: 'layer-wise' }, { method: { overlap: true } }));
  });

  test('one rank needs no others', async () => {
    const communicator = (await runRanks(1, async (own) => own))[0]!;
    const how = { method: { distribution: {} } };
    expect((await trainOne(communicator, how)).weights).toEqual((await alone()).weights);
  });
});

/** The link with shares that `share` makes of its own. */
function withShare(link: KfacMethod['link'], share: (own: number, size: number) => number): Link {
  if (link.kind !== 'exchange') throw new Error('expected a link that exchanges');
  return {
    ...link,
    open(context) {
      const opened = link.open(context);
      const { size } = context.communicator;
      return {
        ...opened,
        exchange: (gradients, scope) => opened.exchange(gradients, { ...scope, share: share(scope.share, size) }),
      };
    },
  };
}

/** Stops after so many steps of the first epoch, and writes a checkpoint. */
const stopping = (folder: string, at: number) => (): Partial<TrainOptions> => {
  const abort = new AbortController();
  const progress: TrainOptions['progress'] = (event) => {
    if (event.kind === 'step' && event.epoch === 1 && event.batch === at) abort.abort();
  };
  return { checkpoint: { folder }, signal: abort.signal, progress };
};

await describeEngines('K-FAC and checkpoints', () => {
  test.each([
    ['each step', { factorEvery: 1, inverseEvery: 1 }],
    ['stale', { factorEvery: 2, inverseEvery: 3 }],
    ['begun and not taken into use', { factorEvery: 2, inverseEvery: 2, overlap: true }],
    ['inverse form, overlap', { factorEvery: 2, inverseEvery: 2, overlap: true, form: 'inverse' }],
    ['damping by schedule', { factorEvery: 2, inverseEvery: 3, damping: '0.1 / (1 + step)', form: 'inverse' }],
    ['sampled', { factorEvery: 2, inverseEvery: 2, fisher: 'sampled' }],
  ] as const)('a resumed run has the bits of one that was not stopped: %s', async (_name, method) => {
    const whole = await alone({ method });
    for (const at of [1, 3]) {
      const folder = await mkdtemp(join(tmpdir(), 'frugal-kfac-'));
      await expect(alone({ method, run: stopping(folder, at) })).rejects.toThrow(`stopped at step ${at}`);
      const resumed = await alone({ method, run: () => ({ checkpoint: { folder } }) });
      expect(resumed.weights).toEqual(whole.weights);
      expect([resumed.report.updates, resumed.report.decompositions]).toEqual([
        whole.report.updates,
        whole.report.decompositions,
      ]);
      await rm(folder, { recursive: true });
    }
  });

  test.each(['communication-optimal', 'layer-wise'] as const)(
    'of two ranks goes on with two, and with other numbers: %s',
    async (strategy) => {
      const method = { factorEvery: 2, inverseEvery: 2, overlap: true };
      const whole = await together(2, { strategy }, { method });
      const resume = async (size: number): Promise<Trained[]> => {
        const folder = await mkdtemp(join(tmpdir(), 'frugal-kfac-'));
        const stopped = together(2, { strategy }, { method, run: stopping(folder, 2) });
        await expect(stopped).rejects.toThrow('stopped at step 3');
        const result = await together(size, { strategy }, { method, run: () => ({ checkpoint: { folder } }) });
        await rm(folder, { recursive: true });
        return result;
      };
      expect((await resume(2)).map(({ weights }) => weights)).toEqual(whole.map(({ weights }) => weights));
      for (const { weights } of [...(await resume(1)), ...(await resume(3))]) {
        expect(relativeError(weights, whole[0]!.weights)).toBeLessThan(1e-5);
      }
    },
  );
});
