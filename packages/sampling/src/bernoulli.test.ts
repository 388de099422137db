import { dense, selectionOf, useEngine } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { bernoulli } from './bernoulli.js';
import { type SamplingOptions, samplingMethod } from './rule.js';
import { chooseBernoulli, inclusionProbabilities } from './selection.js';
import {
  allScores,
  denseWeights,
  expectUnbiased,
  makeOperands,
  positiveOperands,
  scoresOf,
} from './testing/products.js';

beforeAll(async () => {
  await useEngine('cpu', { log: () => undefined });
});

describe('bernoulli', () => {
  it('is unbiased in every product that it samples, dense and convolution: z-scores over 150 draws', () => {
    expectUnbiased(allScores(bernoulli));
  });

  it('fails the same check without its scales', () => {
    const unscaled = (options: SamplingOptions) =>
      samplingMethod(
        {
          name: 'unscaled',
          source: '',
          unbiased: false,
          by: 'pairs',
          choose: (w, k, random) => selectionOf(chooseBernoulli(inclusionProbabilities(w, k), random).indices),
        },
        options,
      );
    expect(() => expectUnbiased(allScores(unscaled, 20))).toThrow(/z-scores/);
  });

  it('has the mean squared error Σ (1 − p)/p·w² at a dense layer', () => {
    const operands = makeOperands(dense);
    const { w, square } = denseWeights(operands);
    const p = inclusionProbabilities(w, 3);
    const formula = w.reduce((total, v, i) => total + ((1 - p[i]!) / p[i]!) * v * v, 0) / square;
    const error = scoresOf(bernoulli, 'blackBox', operands, 2000, 1)[0]?.error ?? Number.NaN;
    // 2000 draws of a squared error that scatters by about its own size: 2 % (one sigma).
    expect(error / formula).toBeGreaterThan(0.93);
    expect(error / formula).toBeLessThan(1.07);
  });

  it('keeps the mean that top-k loses at a dense layer of positive inputs', () => {
    const { operands, relativeBias } = positiveOperands();
    // Mean of 1500 draws; one draw errs by about half of |Y|.
    expect(relativeBias(bernoulli, 1500)).toBeLessThan(0.05);
    tf.dispose([operands.x, operands.dy]);
  });
});
