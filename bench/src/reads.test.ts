import { type GradientLink, type Link, type Method, stepper } from '@frugal/core';
import { countingReads, toyModel, useCostlyBackend, weightsOf } from '@frugal/core/testing';
import { adam, adamw, clipByGlobalNorm, ema, kfac, lookahead, sgd } from '@frugal/optim';
import { columnRow, topK, uniform, winnerTakeAll } from '@frugal/sampling';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';

/** Where a read makes everybody wait, a step makes none. */
interface Case {
  readonly title: string;
  readonly optimizer: readonly Link[];
  readonly methods?: readonly Method[];
}

const momentum = sgd({ learningRate: 0.05, momentum: 0.9, weightDecay: 1e-3 });
const keep = { keep: 0.5, minK: 2 } as const;
const CASES: readonly Case[] = [
  { title: 'exact', optimizer: [momentum] },
  {
    title: 'clip, sgd, averages of weights',
    optimizer: [clipByGlobalNorm({ norm: 1 }), momentum, lookahead({ every: 2 }), ema()],
  },
  { title: 'Adam', optimizer: [adam()] },
  { title: 'AdamW', optimizer: [adamw()] },
  { title: 'top-k', optimizer: [momentum], methods: [topK(keep)] },
  { title: 'top-k, backward', optimizer: [momentum], methods: [topK({ ...keep, mode: 'backward' })] },
  { title: 'column-row', optimizer: [momentum], methods: [columnRow(keep)] },
  { title: 'uniform', optimizer: [momentum], methods: [uniform(keep)] },
  { title: 'winner-take-all', optimizer: [momentum], methods: [winnerTakeAll({ ...keep, mode: 'backward' })] },
  // The first of these steps updates the factors and decomposes them.
  {
    title: 'K-FAC between updates',
    optimizer: [momentum],
    methods: [kfac({ damping: 0.1, factorEvery: 10, inverseEvery: 10 })],
  },
];

/** Reads of steps 2 to 5, and the weights after them. */
async function readsOf({ optimizer, methods = [] }: Omit<Case, 'title'>): Promise<{ sync: number; weights: number[] }> {
  const model = toyModel(2);
  const [xs, ys] = [
    tf.randomNormal([12, 8, 8, 1], 0, 1, 'float32', 3),
    tf.tidy(() => tf.oneHot(tf.range(0, 12, 1, 'int32').mod(tf.scalar(3, 'int32')), 3).toFloat()),
  ];
  const { step, dispose } = stepper(model, { optimizer, methods, seed: 1 });
  await step({ xs, ys });
  const sync = await countingReads(async (reads) => {
    for (let i = 0; i < 4; i++) await step({ xs, ys });
    return reads.sync;
  });
  dispose();
  tf.dispose([xs, ys]);
  return { sync, weights: weightsOf(model) };
}

describe('a step on an engine where reading costs', () => {
  beforeAll(useCostlyBackend);

  it.each(CASES)('$title: reads no number', async (given) => {
    const { sync, weights } = await readsOf(given);
    expect(sync).toBe(0);
    expect(weights.every(Number.isFinite)).toBe(true);
  });

  it('is counted: a link that looks is seen', async () => {
    const looking: GradientLink = {
      kind: 'gradient',
      name: 'looking',
      open: () => ({
        transform(gradients) {
          for (const gradient of gradients.values()) gradient.dataSync();
          return new Map(gradients);
        },
      }),
    };
    // Four steps of eight weights.
    expect((await readsOf({ optimizer: [looking, momentum] })).sync).toBe(32);
  });

  it('K-FAC reads its factors where it decomposes them', async () => {
    const every = kfac({ damping: 0.1, factorEvery: 1, inverseEvery: 1 });
    expect((await readsOf({ optimizer: [momentum], methods: [every] })).sync).toBeGreaterThan(0);
  });
});
