import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Communicator, type Progress, slice, train, type TrainOptions } from '@frugal/core';
import { describeEngines, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { afterEach, expect, test } from 'vitest';
import { sine } from './data.js';
import { enkf, type EnkfOptions } from './enkf.js';
import { esmda } from './esmda.js';
import { checksum, shareOf } from './ranks.js';

afterEach(() => tf.disposeVariables());

interface Round {
  readonly parts: Float64Array[];
  readonly complete: Promise<void>;
  finish(): void;
}

function newRound(): Round {
  let finish = (): void => undefined;
  const complete = new Promise<void>((resolve) => (finish = resolve));
  return { parts: [], complete, finish };
}

/** `size` ranks in this process that wait for one another in allGather, the one operation allowed here. */
function lockstep(size: number, traffic: number[] = []): Communicator[] {
  const rounds: Round[] = [];
  const refuse = (): never => {
    throw new Error('only allGather was expected');
  };
  return Array.from({ length: size }, (_, rank) => {
    let turn = 0;
    const allGather = async (values: Float64Array): Promise<Float64Array> => {
      const index = turn++;
      const round = (rounds[index] ??= newRound());
      round.parts[rank] = values.slice();
      if (Object.keys(round.parts).length === size) round.finish();
      await round.complete;
      const all = Float64Array.from(round.parts.flatMap((part) => [...part]));
      traffic[index] = all.length;
      return all;
    };
    const others = { allReduce: refuse, broadcast: refuse, exchange: refuse, barrier: refuse, split: refuse };
    return { rank, size, ...others, allGather: allGather as unknown as Communicator['allGather'] };
  });
}

function net(seed = 1, activation: 'relu' | 'tanh' = 'relu'): tf.LayersModel {
  const kernelInitializer = (k: number) => tf.initializers.randomNormal({ stddev: 1, seed: 10 * seed + k });
  return tf.sequential({
    layers: [
      tf.layers.dense({ units: 5, activation, inputShape: [1], kernelInitializer: kernelInitializer(1) }),
      tf.layers.dense({ units: 1, kernelInitializer: kernelInitializer(2) }),
    ],
  });
}

const data = slice(sine().train, 0, 24);
const quiet = { observationNoise: 0.1, members: 7, log: (): void => undefined };

interface Trained {
  readonly weights: number[];
  readonly predicted: number[];
  readonly here: number;
  readonly all: number;
}

type Own = (rank: number) => {
  options?: Partial<EnkfOptions>;
  run?: Partial<TrainOptions>;
  model?: tf.LayersModel;
};

async function trainOne(communicator: Communicator | undefined, make: typeof enkf, own: Own): Promise<Trained> {
  const { options, run, model = net() } = own(communicator?.rank ?? 0);
  const method = make({ ...quiet, ...options });
  const whole = make === enkf ? { epochs: 1, batchSize: 5 } : { epochs: 4, batchSize: 24 };
  const settings = { ...whole, seed: 3, progress: false as const, ...(communicator && { communicator }), ...run };
  const report = await train(model, data, { methods: [method], optimizer: [], ...settings });
  const { forwardPassesHere: here, forwardPasses: all, predict } = report.of(method);
  const { mean, standardDeviation } = predict(tf.tensor2d([0, 1, 2], [3, 1]));
  return { weights: weightsOf(model), predicted: [...mean.dataSync(), ...standardDeviation.dataSync()], here, all };
}

const trainAll = (size: number, make = enkf, own: Own = () => ({}), traffic?: number[]): Promise<Trained[]> =>
  Promise.all(lockstep(size, traffic).map((communicator) => trainOne(communicator, make, own)));

test('shares of the members', () => {
  const shares = (count: number, size: number) =>
    Array.from({ length: size }, (_, rank) => shareOf(count, { rank, size }));
  expect(shares(7, 3)).toEqual([
    [0, 2],
    [2, 4],
    [4, 7],
  ]);
  expect(shares(2, 3)).toEqual([
    [0, 0],
    [0, 1],
    [1, 2],
  ]);
});

test('a checksum sees order and place', () => {
  const [a, b] = [Float32Array.of(1, 2), Float32Array.of(2, 1)];
  expect(checksum(a)).toBe(checksum(Float32Array.of(0, 1, 2).subarray(1)));
  expect(checksum(a)).not.toBe(checksum(b));
  expect(checksum(a, b)).not.toBe(checksum(b, a));
});

await describeEngines('members over ranks', () => {
  test.each([
    ['enkf', enkf, {}],
    ['enkf with all options', enkf, { inflation: { additive: 0.01 }, momentum: 0.5, dropout: 0.3 }],
    ['esmda', esmda, {}],
  ] as const)('%s: any number of ranks gives the bits of one', async (_name, make, options) => {
    const alone = await trainOne(undefined, make, () => ({ options }));
    expect(alone.here).toBe(alone.all);
    for (const size of [1, 2, 3, 8]) {
      const ranks = await trainAll(size, make, () => ({ options }));
      for (const { weights, predicted, all } of ranks) {
        expect(weights).toEqual(alone.weights);
        expect(predicted).toEqual(alone.predicted);
        expect(all).toBe(alone.all);
      }
      expect(ranks.reduce((sum, { here }) => sum + here, 0)).toBe(alone.all);
    }
    // The control: another seed gives other bits.
    const other = await trainOne(undefined, make, () => ({ options, run: { seed: 4 } }));
    expect(other.predicted).not.toEqual(alone.predicted);
  });

  test('tanh: ranks have the bits of one rank, wherever a member stands in a product', async () => {
    const own = (): ReturnType<Own> => ({ model: net(1, 'tanh') });
    const alone = await trainOne(undefined, enkf, own);
    const ranks = await trainAll(3, enkf, own);
    for (const { weights } of ranks) expect(weights).toEqual(alone.weights);
  });
});

test('predictions travel, weights do not', async () => {
  const traffic: number[] = [];
  await trainAll(3, enkf, () => ({}), traffic);
  // 24 examples in batches of 5: J·N + 4 numbers of each rank.
  expect(traffic).toEqual([5, 5, 5, 5, 4].map((n) => 7 * n + 3 * 4));
});

test('ranks that do not agree stop, all of them', async () => {
  const expectAll = async (own: Own, message: RegExp): Promise<void> => {
    const results = await Promise.allSettled(lockstep(3).map((communicator) => trainOne(communicator, enkf, own)));
    for (const result of results) {
      expect(result.status).toBe('rejected');
      expect((result as PromiseRejectedResult).reason).toMatchObject({
        code: 'COMMUNICATION',
        message: expect.stringMatching(message) as string,
      });
    }
  };
  await expectAll((rank) => ({ options: { members: rank === 1 ? 8 : 7 } }), /number of members.*(8|7).*same options/);
  await expectAll((rank) => ({ model: net(rank === 2 ? 5 : 1) }), /same ensemble.*model with the same weights/);
  await expectAll((rank) => ({ run: { seed: rank === 0 ? 1 : 3 } }), /same batch.*not the examples/);
});

test('a checkpoint of two ranks goes on with one, and with the same bits', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'frugal-ranks-'));
  const options = { momentum: 'step / (step + 3)', dropout: 0.2 };
  const whole = await trainOne(undefined, enkf, () => ({ options }));
  const stopped = (rank: number): Partial<TrainOptions> => {
    const abort = new AbortController();
    const progress: Progress = (event) => {
      if (event.kind === 'step' && event.batch === 3) abort.abort();
    };
    return { checkpoint: { folder: join(folder, `${rank}`) }, signal: abort.signal, progress };
  };
  await expect(trainAll(2, enkf, (rank) => ({ options, run: stopped(rank) }))).rejects.toThrow(/stopped at step 3/);
  const resumed = await trainOne(undefined, enkf, () => ({
    options,
    run: { checkpoint: { folder: join(folder, '0') } },
  }));
  expect(resumed.all).toBe((24 - 15) * 7);
  expect([resumed.weights, resumed.predicted]).toEqual([whole.weights, whole.predicted]);
  await rm(folder, { recursive: true });
});
