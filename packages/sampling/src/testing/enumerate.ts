import { type Stream, stream } from '@frugal/core';

/** The terms T_i = A_i B_i of a product, each flattened, in float64. */
export type Terms = readonly Float64Array[];

/** One thing that chance can do. */
export interface Outcome {
  readonly probability: number;
  readonly selection: { readonly indices: ArrayLike<number>; readonly scales?: ArrayLike<number> };
}

export const squared = (v: ArrayLike<number>): number =>
  Array.from(v).reduce((total, value) => total + value * value, 0);

/** |T_i|, which is |A_i|·|B_i|. */
export const normsOf = (terms: Terms): Float64Array => Float64Array.from(terms, (term) => Math.sqrt(squared(term)));

/** Σ scale_i T_i over the chosen i. */
export function estimate(terms: Terms, { indices, scales }: Outcome['selection']): Float64Array {
  const result = new Float64Array((terms[0] as Float64Array).length);
  for (let j = 0; j < indices.length; j++) {
    const scale = scales?.[j] ?? 1;
    (terms[indices[j] as number] as Float64Array).forEach((value, i) => {
      result[i] = (result[i] as number) + scale * value;
    });
  }
  return result;
}

/** Σ T_i. */
export const exactOf = (terms: Terms): Float64Array => estimate(terms, { indices: terms.map((_, i) => i) });

/**
 * n outer products of an m- and a p-vector. Without `weights` the vectors are normal with the given mean; with them the
 * terms have those norms.
 */
export function makeTerms(
  n: number,
  options: { m?: number; p?: number; mean?: number; weights?: readonly number[]; seed?: number } = {},
): Terms {
  const { m = 3, p = 2, mean = 0, weights, seed = 1 } = options;
  const random = stream(seed, 'terms');
  return Array.from({ length: n }, (_, i) => {
    const a = Float64Array.from({ length: m }, () => random.normal() + mean);
    const b = Float64Array.from({ length: p }, () => random.normal() + mean);
    const term = Float64Array.from(
      { length: m * p },
      (_, j) => (a[Math.floor(j / p)] as number) * (b[j % p] as number),
    );
    const scale = weights ? (weights[i] as number) / Math.sqrt(squared(term)) : 1;
    return term.map((value) => value * scale);
  });
}

/** Exact bias |E C~ − C| and variance E|C~ − E C~|², over every outcome. */
export function moments(terms: Terms, outcomes: readonly Outcome[]): { bias: number; variance: number; mass: number } {
  const exact = exactOf(terms);
  const mean = new Float64Array(exact.length);
  let second = 0;
  let mass = 0;
  for (const { probability, selection } of outcomes) {
    const value = estimate(terms, selection);
    mass += probability;
    second += probability * squared(value);
    value.forEach((v, i) => {
      mean[i] = (mean[i] as number) + probability * v;
    });
  }
  return {
    bias: Math.sqrt(squared(mean.map((v, i) => v - (exact[i] as number)))),
    variance: second - squared(mean),
    mass,
  };
}

/** A stream that says what it is told: its integers from `below`, its uniforms from `next`. */
export function scripted({ next = [], below = [] }: { next?: readonly number[]; below?: readonly number[] }): Stream {
  let i = 0;
  let j = 0;
  const take = (values: readonly number[], index: number): number => {
    if (index >= values.length) throw new Error('The chooser asked for more chance than the script holds.');
    return values[index] as number;
  };
  return { ...stream(0, 'scripted'), next: () => take(next, i++), below: () => take(below, j++) };
}

/** Every sequence of `length` digits, digit d running over 0 … base(d) − 1. */
export function sequences(length: number, base: (digit: number) => number): number[][] {
  let all: number[][] = [[]];
  for (let d = 0; d < length; d++) {
    all = all.flatMap((head) => Array.from({ length: base(d) }, (_, value) => [...head, value]));
  }
  return all;
}

/** Every sequence of k draws with these probabilities, handed to a chooser as uniforms in the middle of each interval. */
export function drawOutcomes(
  probabilities: ArrayLike<number>,
  k: number,
  choose: (random: Stream) => Outcome['selection'],
): Outcome[] {
  const p = Array.from(probabilities);
  const possible = [...p.keys()].filter((i) => (p[i] as number) > 0);
  const below = p.map((_, i) => p.slice(0, i).reduce((a, b) => a + b, 0));
  return sequences(k, () => possible.length).map((digits) => {
    const drawn = digits.map((digit) => possible[digit] as number);
    return {
      probability: drawn.reduce((product, i) => product * (p[i] as number), 1),
      selection: choose(scripted({ next: drawn.map((i) => (below[i] as number) + (p[i] as number) / 2) })),
    };
  });
}

/** Every mask of the indices that are not certain, handed to a chooser as uniforms below or above each probability. */
export function maskOutcomes(
  probabilities: ArrayLike<number>,
  choose: (random: Stream) => Outcome['selection'],
): Outcome[] {
  const open = Array.from(probabilities).filter((p) => p < 1);
  return sequences(open.length, () => 2).map((mask) => ({
    probability: mask.reduce((product, bit, i) => product * (bit ? (open[i] as number) : 1 - (open[i] as number)), 1),
    selection: choose(
      scripted({ next: mask.map((bit, i) => (bit ? (open[i] as number) / 2 : ((open[i] as number) + 1) / 2)) }),
    ),
  }));
}
