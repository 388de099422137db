import { selectionOf, useEngine } from '@frugal/core';
import { beforeAll, describe, expect, it } from 'vitest';
import { columnRow } from './column-row.js';
import { type SamplingOptions, samplingMethod } from './rule.js';
import { chooseWinners, inclusionProbabilities } from './selection.js';
import { allScores, expectUnbiased } from './testing/products.js';
import { winnerTakeAll } from './winner-take-all.js';

beforeAll(async () => {
  await useEngine('cpu', { log: () => undefined });
});

describe('winnerTakeAll', () => {
  it('is unbiased in every product that it samples, and errs less than column-row sampling in each', () => {
    const scores = allScores(winnerTakeAll);
    expectUnbiased(scores);
    const others = allScores(columnRow, 60);
    // Equal where no pair wins; 60 draws of an error that scatters by its own size: 13 % (one sigma).
    for (const [i, { label, error }] of scores.entries()) expect(error / others[i]!.error, label).toBeLessThan(1.35);
    const ratios = scores.map(({ error }, i) => error / others[i]!.error);
    expect(ratios.reduce((a, b) => a + b, 0) / ratios.length).toBeLessThan(0.9);
  });

  it('fails the same check where the draws are not scaled', () => {
    const unscaled = (options: SamplingOptions) =>
      samplingMethod(
        {
          name: 'unscaled',
          source: '',
          unbiased: false,
          by: 'pairs',
          choose: (w, k, random) => selectionOf(chooseWinners(inclusionProbabilities(w, k), k, random).indices),
        },
        options,
      );
    expect(() => expectUnbiased(allScores(unscaled, 20))).toThrow(/z-scores/);
  });
});
