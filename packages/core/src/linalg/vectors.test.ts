import type { VectorLoops } from '@frugal/native';
import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { FrugalError } from '../errors.js';
import { stream } from '../rng.js';
import { fastestSum, type FloatVector, sumInJavaScript, weightedSum } from './vectors.js';

type Sum = (into: Float32Array, weights: readonly number[], parts: readonly Float32Array[]) => void;

const loops = await import('@frugal/native')
  .then(({ loadVectors }) => loadVectors())
  .catch((error: unknown) => error as Error);

/** One bit pattern for all NaN, whose own one is the processor's. */
const bitsOf = (values: Float32Array): Int32Array => {
  const words = new Int32Array(values.slice().buffer);
  return words.map((word, i) => (Number.isNaN(values[i]) ? 0x7fc00000 : word));
};

const SPECIAL = [0, -0, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, Infinity, -Infinity, Number.NaN, 1, -1, 2 ** -24];

/** Numbers of all magnitudes, with one of the special ones here and there. */
function vectorOf(length: number, seed: number): Float32Array {
  const random = stream(seed, length);
  return Float32Array.from({ length }, () => {
    if (random.next() < 0.1) return SPECIAL[Math.floor(random.next() * SPECIAL.length)] as number;
    return random.normal() * 10 ** (random.next() < 0.2 ? 80 * (random.next() - 0.5) : 0);
  });
}

interface Case {
  readonly length: number;
  readonly weights: readonly number[];
  readonly alias: number;
  readonly seed: number;
}

/** The bits of a sum; `into` is part `alias` where there is one. */
function run(sum: Sum, { length, weights, alias, seed }: Case): Int32Array {
  const parts = weights.map((_, k) => vectorOf(length, seed + k));
  const into = parts[alias] ?? new Float32Array(length);
  sum(into, weights, parts);
  return bitsOf(into);
}

const weight = fc.oneof(
  fc.double({ min: -2, max: 2, noNaN: true }),
  fc.constantFrom(0, -0, 1, -1, 1e-30, 1e30, Infinity, Number.NaN),
);
const cases = (lengths: readonly number[]): fc.Arbitrary<Case> =>
  fc.record({
    length: fc.constantFrom(...lengths),
    weights: fc.array(weight, { minLength: 1, maxLength: 5 }),
    alias: fc.integer({ min: -1, max: 4 }),
    seed: fc.nat(1e6),
  });

/** By definition, one element after the other. */
const byDefinition: Sum = (into, weights, parts) =>
  into.set(
    into.map((_, i) => parts.map((part, k) => (weights[k] as number) * (part[i] as number)).reduce((a, b) => a + b)),
  );

/** The control: sums in float32. */
const inSingle: Sum = (into, weights, parts) =>
  into.set(
    into.map((_, i) =>
      parts
        .map((part, k) => Math.fround((weights[k] as number) * (part[i] as number)))
        .reduce((a, b) => Math.fround(a + b)),
    ),
  );

describe('weightedSum in JavaScript', () => {
  it('is its definition, for any number of parts', () => {
    fc.assert(
      fc.property(cases([0, 1, 7, 1000, 3000]), (one) => {
        expect(run(sumInJavaScript, one)).toEqual(run(byDefinition, one));
      }),
      { numRuns: 100 },
    );
  });
  it('rounds once: sums in float32 give other bits', () => {
    const one = { length: 1000, weights: [0.3, -0.7, 0.1], alias: -1, seed: 3 };
    expect(run(sumInJavaScript, one)).not.toEqual(run(inSingle, one));
    // 1 + 2⁻²⁴ + 2⁻²⁴ is a float32 number that sums in float32 do not reach.
    const into = new Float32Array(1);
    sumInJavaScript(
      into,
      [1, 1, 1],
      [1, 2 ** -24, 2 ** -24].map((value) => Float32Array.of(value)),
    );
    expect(into[0]).toBe(1 + 2 ** -23);
  });
  it('takes float64, which it does not round; nothing at all is 0', () => {
    const into = Float64Array.of(0.1, 0.2);
    weightedSum(into, [2, 1 / 3], [into, Float64Array.of(1, 7)]);
    expect([...into]).toEqual([2 * 0.1 + (1 / 3) * 1, 2 * 0.2 + (1 / 3) * 7]);
    weightedSum(into, [], []);
    expect([...into]).toEqual([0, 0]);
  });
  it('refuses parts of another number or length', () => {
    const sum =
      (weights: number[], ...parts: FloatVector[]) =>
      () =>
        weightedSum(new Float32Array(2), weights, parts);
    for (const bad of [sum([1]), sum([], new Float32Array(2)), sum([1], new Float32Array(3))])
      expect(bad).toThrow(expect.objectContaining({ code: 'SHAPE' }) as FrugalError);
  });
});

describe.skipIf(loops instanceof Error)('weightedSum by the addon', () => {
  const native: Sum = (into, weights, parts) => (loops as VectorLoops).weightedSum(into, weights, parts);
  it('gives the bits of JavaScript', () => {
    // As bytes: to compare 100 003 numbers one by one takes longer than to add them up.
    const bytes = (sum: Sum, one: Case): Buffer => Buffer.from(run(sum, one).buffer);
    const same = (one: Case): boolean => bytes(native, one).equals(bytes(sumInJavaScript, one));
    fc.assert(fc.property(cases([0, 1, 7, 1000]), same), { numRuns: 300 });
    fc.assert(fc.property(cases([100_003]), same), { numRuns: 20 });
    expect(bytes(inSingle, { length: 1000, weights: [0.3, -0.7], alias: 0, seed: 3 })).not.toEqual(
      bytes(native, { length: 1000, weights: [0.3, -0.7], alias: 0, seed: 3 }),
    );
  });
  it('gives the bits of JavaScript where a fused multiply-add would not', () => {
    // w·x − (w·x rounded) is 0 only where the first product is rounded too; whichever product would be the fused one.
    const [w, x] = [0.1, Math.fround(0.3)];
    const filled = (value: number): Float32Array => new Float32Array(64).fill(value);
    const [xs, ones, into] = [filled(x), filled(1), filled(9)];
    for (const [weights, parts] of [
      [
        [w, -(w * x)],
        [xs, ones],
      ],
      [
        [-(w * x), w],
        [ones, xs],
      ],
      [
        [0, -(w * x), w],
        [ones, ones, xs],
      ],
      [
        [0, 0, -(w * x), w],
        [ones, ones, ones, xs],
      ],
    ] as [number[], Float32Array[]][]) {
      native(into, weights, parts);
      expect(new Set(into)).toEqual(new Set([0]));
    }
  });
  it('is what fastestSum takes for long float32 vectors; float64 and short ones as before', async () => {
    const sum = await fastestSum();
    expect(sum).not.toBe(weightedSum);
    for (const length of [7, 5000]) {
      const one = { length, weights: [0.3, -0.7, 0.1, 2], alias: 1, seed: 5 };
      expect(run(sum, one)).toEqual(run(sumInJavaScript, one));
    }
    const [x, y] = [new Float64Array(5000).fill(0.1), new Float64Array(5000).fill(0.2)];
    sum(x, [1, 1], [x, y]);
    expect(x[4999]).toBe(0.1 + 0.2);
    // More parts than it takes at once.
    const many = { length: 3000, weights: Array.from({ length: 20 }, (_, k) => k / 7), alias: 3, seed: 9 };
    expect(run(sum, many)).toEqual(run(byDefinition, many));
  });
  it('refuses arrays of other lengths or types instead of reading beyond them', () => {
    expect(() => native(new Float32Array(3), [1], [new Float32Array(2)])).toThrow(/as long as their sum/);
    expect(() => native(new Float32Array(3), [], [])).toThrow(/1 to 16 parts/);
    expect(() => native(new Float32Array(3), [1, 1], [new Float32Array(3)])).toThrow(/typed array/);
  });
});

describe('fastestSum', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.resetModules();
  });
  it('stays with JavaScript where the addon is switched off', async () => {
    vi.resetModules();
    vi.stubEnv('FRUGAL_NATIVE', 'off');
    const fresh = await import('./vectors.js');
    const sum = await fresh.fastestSum();
    expect(sum).toBe(fresh.weightedSum);
    const into = new Float32Array(5000);
    sum(into, [2], [new Float32Array(5000).fill(3)]);
    expect(into[4999]).toBe(6);
  });
});
