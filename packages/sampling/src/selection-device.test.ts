import { type Selection, stream, type Stream, useEngine } from '@frugal/core';
import { expectNoLeak } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { chooseDraws, chooseTop, chooseWinners, drawProbabilities, inclusionProbabilities, sum } from './selection.js';
import { chooseDrawsOnDevice, chooseTopOnDevice, chooseWinnersOnDevice, firstAbove } from './selection-device.js';
import {
  drawOutcomes,
  estimate,
  exactOf,
  makeTerms,
  moments,
  normsOf,
  type Outcome,
  scripted,
  squared,
  type Terms,
} from './testing/enumerate.js';
import { countReads } from './testing/far-engine.js';

beforeAll(async () => {
  await useEngine('cpu', { log: () => undefined });
});

const CHOOSERS = { topK: chooseTopOnDevice, columnRow: chooseDrawsOnDevice, winnerTakeAll: chooseWinnersOnDevice };
const RANDOM = [
  ['columnRow', chooseDrawsOnDevice],
  ['winnerTakeAll', chooseWinnersOnDevice],
] as const;

// Weights, sums and scales are float32: a few roundings of 6e-8 each, and of six weights.
const FLOAT32 = 2e-6;

const random = stream(1, 'any');

/** The choice of a device chooser, as plain numbers. */
function chosen(
  choose: (weights: tf.Tensor1D, k: number, random: Stream) => Selection,
  weights: ArrayLike<number>,
  k: number,
  chance: Stream = random,
): { size: number; indices: number[]; scales: number[] | undefined } {
  return tf.tidy(() => {
    const { size, indices, scales } = choose(tf.tensor1d(Float32Array.from(weights)), k, chance);
    const numbers = (values: Selection['indices'] | Float32Array): number[] => [...(values as tf.Tensor1D).dataSync()];
    return { size, indices: numbers(indices), scales: scales && numbers(scales) };
  });
}

/** Σ of the scales of each index. */
function totals(n: number, indices: ArrayLike<number>, scales: ArrayLike<number>): Float64Array {
  const result = new Float64Array(n);
  Array.from(indices).forEach((index, j) => {
    result[index]! += scales[j] as number;
  });
  return result;
}

const lognormal = (n: number, spread: number, seed: number): Float64Array => {
  const next = stream(seed, 'weights');
  return Float64Array.from({ length: n }, () => Math.exp(spread * next.normal()));
};

describe('firstAbove', () => {
  it('is the upper bound of a search, on every edge, at every length up to 40 and at some more', () => {
    for (const n of [...Array.from({ length: 40 }, (_, i) => i + 1), 63, 64, 65, 257, 1000]) {
      const next = stream(n, 'search');
      // Integers, so that sums are exact; zeros, so that edges are equal.
      const cumulative = tf.cumsum<tf.Tensor1D>(tf.tensor1d(Array.from({ length: n }, () => next.below(3))));
      const total = cumulative.dataSync()[n - 1] as number;
      const v = tf.tensor1d(Array.from({ length: 2 * total }, (_, i) => i / 2));
      const expected = tf.searchSorted(cumulative, v, 'right').dataSync();
      expect([...firstAbove(cumulative, v).dataSync()], `length ${n}`).toEqual([...expected]);
      expect(Math.max(...expected, 0)).toBeLessThan(n);
    }
  });

  it('is the last index where nothing exceeds, at every length', () => {
    for (let n = 1; n < 30; n++) {
      expect(firstAbove(tf.ones([n]), tf.tensor1d([1, 7])).dataSync()).toEqual(Float32Array.of(n - 1, n - 1));
    }
  });
});

describe('every device chooser', () => {
  it.each(Object.entries(CHOOSERS))('%s keeps a fixed size, in place, and reads nothing', (_name, choose) => {
    for (let seed = 0; seed < 20; seed++) {
      const n = 2 + stream(seed).below(40);
      const k = 1 + stream(seed, 'k').below(n - 1);
      const weights = tf.tensor1d(Float32Array.from(lognormal(n, 2, seed)));
      const reads = countReads();
      const { size, indices, scales } = choose(weights, k, stream(seed));
      reads.stop();
      expect(reads.count()).toBe(0);
      expect(size).toBe(k);
      expect([(indices as tf.Tensor).shape, (indices as tf.Tensor).dtype]).toEqual([[k], 'int32']);
      if (scales) expect([(scales as tf.Tensor).shape, (scales as tf.Tensor).dtype]).toEqual([[k], 'float32']);
      const numbers = [...(indices as tf.Tensor).dataSync()];
      expect(numbers.every((i) => i >= 0 && i < n)).toBe(true);
      tf.dispose([weights, indices as tf.Tensor, ...(scales ? [scales as tf.Tensor] : [])]);
    }
  });

  it.each(Object.entries(CHOOSERS))('%s leaves nothing behind', async (_name, choose) => {
    await expectNoLeak(() => chosen(choose, [1, 2, 3, 4, 5], 3));
  });

  it.each(RANDOM)('%s makes every scale NaN where a weight is NaN or infinite', (_name, choose) => {
    for (const bad of [Number.NaN, Infinity]) {
      const { indices, scales } = chosen(choose, [1, bad, 2, 3, 0, 1], 3);
      expect(scales).toEqual([Number.NaN, Number.NaN, Number.NaN]);
      expect(indices.every((i) => i >= 0 && i < 6)).toBe(true);
    }
    expect(chosen(choose, [1, 1e30, 2, 3, 0, 1], 3).scales?.every(Number.isFinite)).toBe(true);
  });

  it.each(RANDOM)('%s counts all indices alike where no weight is positive', (_name, choose) => {
    const seen = new Set<number>();
    for (let seed = 0; seed < 20; seed++) {
      const { indices, scales } = chosen(choose, new Float32Array(6), 3, stream(seed));
      expect(scales).toEqual([2, 2, 2]);
      for (const index of indices) seen.add(index);
    }
    expect(seen.size).toBe(6);
  });
});

describe('topK on the device', () => {
  it('chooses as the host does, ties included', () => {
    for (let seed = 0; seed < 60; seed++) {
      const next = stream(seed, 'top');
      const n = 1 + next.below(40);
      const k = 1 + next.below(n);
      for (const weights of [
        Float32Array.from({ length: n }, () => next.below(6)),
        Float32Array.from(lognormal(n, 1, seed)),
      ]) {
        const { indices, scales } = chosen(chooseTopOnDevice, weights, k);
        expect(Int32Array.from(indices).sort()).toEqual(chooseTop(weights, k).indices);
        expect(scales).toBeUndefined();
      }
    }
  });

  it('takes what is NaN or infinite first', () => {
    const weights = [5, Number.NaN, 7, 1, Infinity, 9, 3e38];
    const sorted = (k: number) => chosen(chooseTopOnDevice, weights, k).indices.sort();
    expect(sorted(2)).toEqual([1, 4]);
    expect(sorted(3)).toEqual([1, 4, 6]);
    expect(sorted(5)).toEqual(
      [1, 2, 4, 5, 6]
        .filter((i) => i !== 2)
        .concat(2)
        .sort(),
    );
    const all = new Float32Array(50).fill(Number.NaN).fill(1, 0, 30);
    expect(chosen(chooseTopOnDevice, all, 10).indices.every((i) => i >= 30)).toBe(true);
  });
});

describe('column-row draws on the device', () => {
  it('are those that the host makes of the same stream', () => {
    for (let seed = 0; seed < 40; seed++) {
      const n = 2 + stream(seed).below(60);
      const k = 1 + stream(seed, 'k').below(n - 1);
      const weights = lognormal(n, 1.5, seed);
      const host = chooseDraws(drawProbabilities(weights), k, stream(seed, 'draws'));
      const { indices, scales } = chosen(chooseDrawsOnDevice, weights, k, stream(seed, 'draws'));
      const [ours, theirs] = [totals(n, indices, scales!), totals(n, host.indices, host.scales!)];
      ours.forEach((value, i) => expect(Math.abs(value - theirs[i]!)).toBeLessThanOrEqual(1e-5 * theirs[i]!));
    }
  });

  it('have no bias and the variance (S² − |C|²)/k: every sequence of three draws from six', () => {
    const terms = makeTerms(6, { weights: [9, 5, 3, 2, 1, 0.5] });
    const w = normsOf(terms);
    const outcomes = drawOutcomes(drawProbabilities(w), 3, (chance) =>
      onHost(chosen(chooseDrawsOnDevice, w, 3, chance)),
    );
    const { bias, variance, mass } = moments(terms, outcomes);
    expect(outcomes).toHaveLength(6 ** 3);
    expect(Math.abs(mass - 1)).toBeLessThan(1e-6);
    expect(bias).toBeLessThan(20 * FLOAT32);
    expect(variance / ((20.5 ** 2 - squared(exactOf(terms))) / 3)).toBeCloseTo(1, 5);
  });

  it('without scales are biased: the enumeration sees it', () => {
    const terms = makeTerms(6);
    const w = normsOf(terms);
    const outcomes = drawOutcomes(drawProbabilities(w), 3, (chance) => ({
      indices: chosen(chooseDrawsOnDevice, w, 3, chance).indices,
    }));
    expect(moments(terms, outcomes).bias).toBeGreaterThan(0.05 * Math.sqrt(squared(exactOf(terms))));
  });

  it('never take an index of no weight, at the ends neither', () => {
    for (const u of [0, 2 ** -33, 0.5, 0.75, 1 - 2 ** -32]) {
      const { indices, scales } = chosen(chooseDrawsOnDevice, [0, 0, 3, 0, 1, 0], 2, scripted({ next: [u, u] }));
      const expected = u < 0.75 ? 2 : 4;
      expect(indices).toEqual([expected, expected]);
      expect(scales).toEqual(u < 0.75 ? [Math.fround(4 / 6), Math.fround(4 / 6)] : [2, 2]);
    }
  });

  it('come up as often as their weights say, of thousands', () => {
    const n = 3000;
    const weights = lognormal(n, 1, 3);
    const total = sum(weights);
    const k = 2999;
    const { indices, scales } = chosen(chooseDrawsOnDevice, weights, k, stream(2));
    // Every draw stands for S/k, whichever it is.
    indices.forEach((i, j) => expect((scales![j]! * weights[i]! * k) / total).toBeCloseTo(1, 4));
    // In ten groups of equal weight, each within 4.5 standard deviations of k/10.
    const ends = weights.map(
      (
        (running) => (w: number) =>
          (running += w)
      )(0),
    );
    const group = (i: number): number => Math.min(9, Math.floor((10 * (ends[i]! - weights[i]! / 2)) / total));
    const counts = new Float64Array(10);
    for (const i of indices) counts[group(i)]! += 1;
    for (const count of counts) expect(Math.abs(count - k / 10)).toBeLessThan(4.5 * Math.sqrt(k * 0.1 * 0.9));
  });
});

const onHost = ({ indices, scales }: { indices: number[]; scales: number[] | undefined }): Outcome['selection'] => ({
  indices,
  scales: scales!,
});

describe('winner-take-all on the device', () => {
  /** Every sequence of the draws: with weights ascending, as the slots search them. The winners' slots ask for chance as well. */
  const outcomesOf = (terms: Terms, k: number) => {
    const w = normsOf(terms);
    const p = inclusionProbabilities(w, k);
    const order = [...w.keys()].filter((i) => p[i]! < 1).sort((a, b) => w[a]! - w[b]!);
    const draws = k - p.filter((v) => v >= 1).length;
    const outcomes = drawOutcomes(drawProbabilities(order.map((i) => w[i]!)), draws, (chance) => {
      let asked = 0;
      const padded = { ...chance, next: () => (asked++ < draws ? chance.next() : 0.5) };
      return onHost(chosen(chooseWinnersOnDevice, w, k, padded));
    });
    return { outcomes, draws };
  };

  it('has no bias and the variance (S_R² − |R|²)/(k − |C|)', () => {
    const terms = makeTerms(6, { weights: [2, 12, 0.5, 5, 1, 1] });
    const winners = [1, 3, 0];
    for (const [k, count] of [
      [3, 2],
      [4, 2],
      [5, 3],
    ] as const) {
      const { outcomes, draws } = outcomesOf(terms, k);
      expect(draws).toBe(k - count);
      const { bias, variance, mass } = moments(terms, outcomes);
      expect(Math.abs(mass - 1)).toBeLessThan(1e-6);
      expect(bias).toBeLessThan(20 * FLOAT32);
      const rest = terms.filter((_, i) => !winners.slice(0, count).includes(i));
      expect(variance / ((sum(normsOf(rest)) ** 2 - squared(exactOf(rest))) / (k - count))).toBeCloseTo(1, 4);
      for (const { selection } of outcomes) {
        const ones = Array.from(selection.indices).filter((_, j) => selection.scales?.[j] === 1);
        expect(ones.sort()).toEqual(winners.slice(0, count).sort());
      }
    }
  });

  it('has the winners that the host has, and draws the others by the same scales', () => {
    for (let seed = 0; seed < 60; seed++) {
      const n = 2 + stream(seed).below(60);
      const k = 1 + stream(seed, 'k').below(n - 1);
      const weights = lognormal(n, seed % 3, seed);
      const p = inclusionProbabilities(weights, k);
      const host = chooseWinners(p, k, stream(seed));
      const { indices, scales } = chosen(chooseWinnersOnDevice, weights, k, stream(seed));
      const certain = [...p.keys()].filter((i) => p[i]! >= 1);
      const slots = indices.filter((i) => p[i]! >= 1);
      expect(slots.sort((a, b) => a - b)).toEqual(certain);
      indices.forEach((i, j) => expect(scales![j]! * p[i]!).toBeCloseTo(1, 4));
      // Σ p·scale over all draws is k on both.
      const mass = (at: ArrayLike<number>, by: ArrayLike<number>) => sum(Array.from(at, (i, j) => p[i]! * by[j]!));
      expect(mass(indices, scales!) / mass(host.indices, host.scales!)).toBeCloseTo(1, 4);
    }
  });

  it('draws nothing where the winners are all that has weight', () => {
    const { indices, scales } = chosen(chooseWinnersOnDevice, [0, 2, 0, 5, 0], 3);
    expect(indices.slice(1)).toEqual([1, 3]);
    expect([0, 2, 4]).toContain(indices[0]);
    expect(scales).toEqual([1, 1, 1]);
  });

  it('loses no small weight to cancellation beside a huge one', () => {
    // 1e17 + 1 + 1 + 1 + 1 rounds to 1e17.
    const { indices, scales } = chosen(chooseWinnersOnDevice, [1e17, 1, 1, 1, 1], 3);
    expect(indices[2]).toBe(0);
    expect(indices.slice(0, 2).every((i) => i > 0)).toBe(true);
    expect(scales).toEqual([2, 2, 1]);
  });

  it('estimates what the host estimates, on average over many draws', () => {
    const terms = makeTerms(20, { m: 4, p: 3, mean: 1, seed: 3 });
    const w = normsOf(terms);
    const exact = exactOf(terms);
    const draws = 600;
    const mean = new Float64Array(exact.length);
    let error = 0;
    for (let draw = 0; draw < draws; draw++) {
      const e = estimate(terms, onHost(chosen(chooseWinnersOnDevice, w, 10, stream(draw)))).map(
        (v, i) => v - exact[i]!,
      );
      error += squared(e) / draws;
      e.forEach((v, i) => (mean[i]! += v / draws));
    }
    // |mean|² is error/draws in expectation, and scatters by less than its size.
    expect(squared(mean)).toBeLessThan((3 * error) / draws);
  });
});
