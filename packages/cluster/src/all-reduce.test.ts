import {
  clockAt,
  type Communicator,
  type ExchangeLink,
  type Numbers,
  type OpenedExchange,
  openScope,
  type Param,
  train as trainer,
  type TrainReport,
} from '@frugal/core';
import {
  describeEngines,
  expectNoLeak,
  relativeError,
  toyImages,
  toyModel,
  toySgd,
  weightsOf,
} from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, it, test } from 'vitest';
import { alone } from './alone.js';
import { allReduce, type AllReduceOptions, type ExchangeReport } from './all-reduce.js';
import { localCluster } from './local.js';
import { contextOf } from './testing/context.js';
import { handTrain } from './testing/data-parallel.js';

const train = (parts: readonly number[], link: () => ExchangeLink, steps = 4): Promise<number[][]> =>
  localCluster(parts.length, (communicator) =>
    handTrain(communicator, { steps, parts, links: () => [link(), toySgd(0.05, 0.9)] }),
  );

const exactly = async (batch: number, steps = 4): Promise<number[]> =>
  handTrain(alone(), { steps, parts: [batch], links: () => [toySgd(0.05, 0.9)] });

await describeEngines('allReduce', (engine) => {
  // The portable engine's products are slow; what differs between engines is how tensors are read and made.
  const sizes = engine === 'native' ? [1, 2, 3, 5] : [2];
  test.each(sizes)('%i ranks are one rank with the batch of all', async (size) => {
    const one = await exactly(6 * size);
    const ranks = await train(
      Array.from({ length: size }, () => 6),
      () => allReduce({ bucketBytes: 2048 }),
    );
    for (const weights of ranks) {
      // Four steps, each a float32 sum in another order.
      expect(relativeError(weights, one)).toBeLessThan(1e-5);
      expect(weights).toEqual(ranks[0]);
    }
    if (size === 1) expect(ranks[0]).toEqual(one);
  });

  test('uneven shares weigh by examples', async () => {
    const one = await exactly(12);
    const [weights] = await train([1, 8, 3], () => allReduce());
    expect(relativeError(weights!, one)).toBeLessThan(1e-5);
  });

  test('train: ranks divide each batch, the short last one too', async () => {
    // 50 examples in batches of 14: the last has 8. With batches of 7 it has one example, so one of two ranks has none.
    const data = toyImages(50);
    for (const batchSize of [14, 7]) {
      const base = { epochs: 1, batchSize, seed: 1, progress: false } as const;
      const alone = toyModel(1);
      await trainer(alone, data, { ...base, optimizer: toySgd(0.05) });
      const ranks = await localCluster(2, async (communicator) => {
        const model = toyModel(1);
        await trainer(model, data, { ...base, optimizer: [allReduce(), toySgd(0.05)], communicator });
        return weightsOf(model);
      });
      expect(relativeError(ranks[0]!, weightsOf(alone))).toBeLessThan(1e-5);
      expect(ranks[1]).toEqual(ranks[0]);
    }
  });

  test('one description serves all ranks and all runs: the bits of one each, and reports of their own', async () => {
    const data = toyImages(50);
    const go = (link: () => ExchangeLink<ExchangeReport>, epochs = 1) =>
      localCluster(2, async (communicator) => {
        const model = toyModel(1);
        const own = link();
        const optimizer = [own, toySgd(0.05)];
        const run: TrainReport = await trainer(model, data, {
          optimizer,
          epochs,
          batchSize: 14,
          communicator,
          progress: false,
        });
        return { weights: weightsOf(model), report: run.of(own) };
      });
    const one = allReduce({ bucketBytes: 2048 });
    const shared = await go(() => one);
    expect(shared).toEqual(await go(() => allReduce({ bucketBytes: 2048 })));
    // 50 examples in batches of 14: four steps. Whole float32 gradients are what is sent.
    const bytesPerStep = 4 * shared[0]!.weights.length;
    for (const { report } of shared)
      expect(report).toEqual({ steps: 4, bytes: 4 * bytesPerStep, bytesPerStep, fullBytes: 4 * bytesPerStep });
    const longer = await go(() => one, 2);
    expect(longer.map(({ report }) => report.steps)).toEqual([8, 8]);
    expect(longer[0]!.weights).not.toEqual(shared[0]!.weights);
  });

  test('no tensor is left', async () => {
    await train([4, 4], () => allReduce(), 1);
    await expectNoLeak(() => train([4, 4], () => allReduce({ bucketBytes: 512 }), 3));
  });

  test('the control: without exchange ranks differ, and with bfloat16 they are near', async () => {
    const one = await exactly(12);
    const [rounded] = await train([6, 6], () => allReduce({ wire: 'bfloat16' }));
    expect(relativeError(rounded!, one)).toBeGreaterThan(1e-5);
    expect(relativeError(rounded!, one)).toBeLessThan(2 ** -8);
    const apart = await localCluster(2, (communicator) =>
      handTrain(communicator, { steps: 4, parts: [6, 6], links: () => [toySgd(0.05, 0.9)] }),
    );
    expect(relativeError(apart[0]!, one)).toBeGreaterThan(2 ** -8);
  });
});

describe('allReduce by hand', () => {
  const paramOf = (name: string, length: number): Param => ({ name, value: tf.variable(tf.zeros([length])) });

  /** The link of a run that is prepared. */
  async function opened(
    params: readonly Param[],
    communicator: Communicator,
    options?: AllReduceOptions,
  ): Promise<OpenedExchange<ExchangeReport>> {
    const link = allReduce(options).open(contextOf(params, communicator));
    await link.prepare?.();
    return link;
  }

  /** Two weights, a gradient of rank + 1 and of 10(rank + 1); returns what rank 0 received and the link. */
  async function exchange(size: number, shares: readonly number[], options?: AllReduceOptions) {
    const [result] = await localCluster(size, async (communicator) => {
      const { rank } = communicator;
      const params = [paramOf('a', 4), paramOf('b', 8)];
      const link = await opened(params, communicator, options);
      const updates = new Map([
        ['a', tf.fill([4], rank + 1)],
        ['b', tf.fill([8], 10 * (rank + 1))],
      ]);
      const scope = openScope(clockAt(0), 0, rank, shares[rank]);
      const sums = await link.exchange(updates, scope);
      return { sums: new Map([...sums].map(([name, t]) => [name, [...t.dataSync()]])), report: link.report?.() };
    });
    return result!;
  }

  it('adds share_r · g_r', async () => {
    // 0.25·1 + 0.5·2 + 0.25·3 = 2
    const { sums } = await exchange(3, [0.25, 0.5, 0.25]);
    expect(sums.get('a')).toEqual([2, 2, 2, 2]);
    expect(sums.get('b')).toEqual(new Array(8).fill(20));
  });

  it('counts bytes; none on one rank', async () => {
    const full = 4 * 12;
    expect((await exchange(2, [0.5, 0.5])).report).toEqual({
      steps: 1,
      bytes: full,
      bytesPerStep: full,
      fullBytes: full,
    });
    expect((await exchange(2, [0.5, 0.5], { wire: 'bfloat16' })).report?.bytes).toBe(full / 2);
    const one = await exchange(1, [0.5]);
    expect(one.report).toEqual({ steps: 0, bytes: 0, bytesPerStep: 0, fullBytes: 0 });
    // And gradients pass as they are, whatever the share.
    expect(one.sums.get('a')).toEqual([1, 1, 1, 1]);
  });

  it('starts a bucket before the last one has arrived', async () => {
    const events: string[] = [];
    const params = [paramOf('a', 4), paramOf('b', 8)];
    const slow = {
      ...alone(),
      size: 2,
      allReduce: async (values: Numbers) => {
        events.push(`start ${values.length}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
        events.push(`end ${values.length}`);
      },
    };
    const updates = new Map(params.map(({ name, value }) => [name, tf.onesLike(value)]));
    const link = await opened(params, slow, { bucketBytes: 32 });
    await link.exchange(updates, openScope(clockAt(0), 0));
    expect(events).toEqual(['start 8', 'start 4', 'end 8', 'end 4']);
  });

  it('a failed reduction is an error, and leaves no promise behind', async () => {
    const params = [paramOf('a', 4), paramOf('b', 8)];
    const broken = { ...alone(), size: 2, allReduce: () => Promise.reject(new Error('the wire is cut')) };
    const updates = new Map(params.map(({ name, value }) => [name, tf.onesLike(value)]));
    const link = await opened(params, broken, { bucketBytes: 32 });
    await expect(link.exchange(updates, openScope(clockAt(0), 0))).rejects.toThrow('the wire is cut');
  });

  it('stands before the update: behind it, a run refuses it with the right order', async () => {
    const model = toyModel(1);
    const optimizer = [toySgd(), allReduce()];
    const run = trainer(model, toyImages(4), { optimizer, epochs: 1, communicator: alone(), progress: false });
    await expect(run).rejects.toThrow('expected the order [allReduce, toySgd] but received [toySgd, allReduce]');
    model.dispose();
  });

  it('refuses bad options, and a step before it is prepared', async () => {
    expect(() => allReduce({ wire: 'float16' as 'float32' })).toThrow(/wire to be one of 'float32', 'bfloat16'/);
    expect(() => allReduce({ bucketBytes: 0 })).toThrow(/bucketBytes in \[4/);
    expect(() => allReduce({ buckets: 1 } as AllReduceOptions)).toThrow(/received "buckets"/);
    const link = allReduce().open(contextOf([paramOf('a', 1)], { ...alone(), size: 2 }));
    const updates = new Map([['a', tf.zeros([1])]]);
    await expect(link.exchange(updates, openScope(clockAt(0), 0))).rejects.toThrow(
      /allReduce: expected to be prepared before its first step/,
    );
  });
});
