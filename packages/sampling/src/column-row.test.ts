import { dense, selectionOf, useEngine } from '@frugal/core';
import { beforeAll, describe, expect, it } from 'vitest';
import { columnRow } from './column-row.js';
import { type SamplingOptions, samplingMethod } from './rule.js';
import { chooseDraws, drawProbabilities } from './selection.js';
import { allScores, denseWeights, expectUnbiased, makeOperands, scoresOf } from './testing/products.js';

beforeAll(async () => {
  await useEngine('cpu', { log: () => undefined });
});

describe('columnRow', () => {
  it('is unbiased in every product that it samples, dense and convolution: z-scores over 150 draws', () => {
    expectUnbiased(allScores(columnRow));
  });

  it('fails the same check where repeated draws count once', () => {
    const forgetful = (options: SamplingOptions) =>
      samplingMethod(
        {
          name: 'forgetful',
          source: '',
          unbiased: false,
          by: 'pairs',
          choose: (w, k, random) => {
            const p = drawProbabilities(w);
            const { indices } = chooseDraws(p, k, random);
            return selectionOf(
              indices,
              Float32Array.from(indices, (i) => 1 / (k * p[i]!)),
            );
          },
        },
        options,
      );
    expect(() => expectUnbiased(allScores(forgetful, 80))).toThrow(/z-scores/);
  });

  it('has the mean squared error (S² − |C|²)/k at a dense layer', () => {
    const operands = makeOperands(dense);
    const { w, square } = denseWeights(operands);
    const formula = (w.reduce((a, b) => a + b, 0) ** 2 - square) / 3 / square;
    const error = scoresOf(columnRow, 'blackBox', operands, 2000, 1)[0]?.error ?? Number.NaN;
    // 2000 draws of a squared error that scatters by about its own size: 2 % (one sigma).
    expect(error / formula).toBeGreaterThan(0.93);
    expect(error / formula).toBeLessThan(1.07);
  });
});
