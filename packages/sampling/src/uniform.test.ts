import { clockAt, dense, openScope, selectionOf, useEngine } from '@frugal/core';
import { beforeAll, describe, expect, it } from 'vitest';
import { type SamplingOptions, samplingMethod } from './rule.js';
import { chooseUniform } from './selection.js';
import { allScores, expectUnbiased, makeOperands, ruleOf, runRule, selectionIn } from './testing/products.js';
import { uniform } from './uniform.js';

beforeAll(async () => {
  await useEngine('cpu', { log: () => undefined });
});

describe('uniform', () => {
  it('is unbiased in every product that it samples, dense and convolution: z-scores over 150 draws', () => {
    expectUnbiased(allScores(uniform));
  });

  it('fails the same check without its scales', () => {
    const unscaled = (options: SamplingOptions) =>
      samplingMethod(
        {
          name: 'unscaled',
          source: '',
          unbiased: false,
          by: 'none',
          choose: (w, k, random) => selectionOf(chooseUniform(w.length, k, random).indices),
        },
        options,
      );
    expect(() => expectUnbiased(allScores(unscaled, 20))).toThrow(/z-scores/);
  });

  it('keeps exactly k distinct indices, whatever the operands, all with the scale n/k', () => {
    const operands = makeOperands(dense);
    for (let step = 0; step < 20; step++) {
      const { plan } = runRule(ruleOf(uniform({ keep: 0.34, minK: 1 })), operands, openScope(clockAt(step), 1));
      const { size, indices, scales } = selectionIn(plan);
      // ⌊6·0.34⌋ = 2
      expect([new Set(indices).size, indices.length, size]).toEqual([2, 2, 2]);
      expect(scales).toEqual([3, 3]);
    }
  });
});
