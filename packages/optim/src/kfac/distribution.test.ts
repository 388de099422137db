import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { assign, type Assignment, type Distribution, type FactorSizes, settleDistribution } from './distribution.js';

const all = { strategy: 'communication-optimal', balance: 'compute' } as const;
const cubes = (n: number): number => n ** 3;

/** Ranks of each column of the grid. */
const grid = ({ columns }: Assignment, ranks: number): number[][] =>
  Array.from({ length: columns }, (_, column) =>
    Array.from({ length: ranks / columns }, (_unused, row) => row * columns + column),
  );

/** Greatest load of a rank. */
function makespan({ layers }: Assignment, sizes: readonly FactorSizes[], ranks: number): number {
  const loads = new Array<number>(ranks).fill(0);
  for (const [i, { a, g }] of layers.entries()) {
    loads[a]! += cubes(sizes[i]!.a);
    loads[g]! += cubes(sizes[i]!.g);
  }
  return Math.max(...loads);
}

/** The least greatest load of all ways to place these costs, one after the other on any rank. */
function optimum(costs: readonly number[], ranks: number): number {
  let best = Number.POSITIVE_INFINITY;
  const loads = new Array<number>(ranks).fill(0);
  const place = (i: number): void => {
    const worst = Math.max(...loads);
    if (worst >= best) return;
    if (i === costs.length) {
      best = worst;
      return;
    }
    for (let rank = 0; rank < ranks; rank++) {
      loads[rank]! += costs[i]!;
      place(i + 1);
      loads[rank]! -= costs[i]!;
      if (loads[rank] === 0) return;
    }
  };
  place(0);
  return best;
}

const size = fc.integer({ min: 1, max: 12 });
const layers = fc.array(fc.record({ a: size, g: size }), { minLength: 1, maxLength: 4 });
const ranks = fc.integer({ min: 1, max: 4 });

test('no rank has more than 4/3 − 1/(3n) of the best possible', () => {
  fc.assert(
    fc.property(layers, ranks, (sizes, n) => {
      const best = optimum(
        sizes.flatMap(({ a, g }) => [cubes(a), cubes(g)]),
        n,
      );
      expect(makespan(assign(sizes, n, all), sizes, n)).toBeLessThanOrEqual((4 / 3 - 1 / (3 * n)) * best + 1e-9);
    }),
    { seed: 7, numRuns: 300 },
  );
});

test('columns too: whole layers over them', () => {
  fc.assert(
    fc.property(layers, ranks, (sizes, n) => {
      const { layers: placed, columns } = assign(sizes, n, { strategy: 'layer-wise', balance: 'memory' });
      const loads = new Array<number>(columns).fill(0);
      for (const [i, { column }] of placed.entries()) loads[column]! += sizes[i]!.a ** 2 + sizes[i]!.g ** 2;
      const best = optimum(
        sizes.map(({ a, g }) => a ** 2 + g ** 2),
        n,
      );
      expect(Math.max(...loads)).toBeLessThanOrEqual((4 / 3 - 1 / (3 * n)) * best + 1e-9);
      for (const { column, a, g } of placed) expect([a % columns, g % columns]).toEqual([column, column]);
    }),
    { seed: 8, numRuns: 300 },
  );
});

test('8 ranks with 2 gradient workers are the grid of KAISA', () => {
  const sizes = Array.from({ length: 8 }, (_, i) => ({ a: 10 + i, g: 5 }));
  const quarter = assign(sizes, 8, { strategy: 0.25, balance: 'compute' });
  expect(grid(quarter, 8)).toEqual([
    [0, 4],
    [1, 5],
    [2, 6],
    [3, 7],
  ]);
  // Heaviest first, 17 16 15 14 | 13 12 11 10: to the column with least, and there A and G apart.
  expect(quarter.layers.map(({ column }) => column)).toEqual([0, 1, 2, 3, 3, 2, 1, 0]);
  for (const { column, a, g } of quarter.layers) {
    expect([a % 4, g % 4]).toEqual([column, column]);
    expect(a).toBeLessThan(8);
  }
  expect(quarter.layers[7]).toEqual({ column: 0, a: 0, g: 4 });
});

test('by hand: two ranks, the larger factor first', () => {
  // Layers 3+1 (27 + 1) and 2+2 (8 + 8): 27 to 0, 1 to 1, 8 to 1, 8 to 1.
  const { layers: placed } = assign(
    [
      { a: 2, g: 2 },
      { a: 1, g: 3 },
    ],
    2,
    all,
  );
  expect(placed).toEqual([
    { column: 0, a: 1, g: 1 },
    { column: 0, a: 1, g: 0 },
  ]);
});

test('strategies by name are the ends of the fractions', () => {
  const sizes = [
    { a: 5, g: 3 },
    { a: 9, g: 2 },
    { a: 4, g: 4 },
  ];
  expect(assign(sizes, 6, { strategy: 1, balance: 'compute' })).toEqual(assign(sizes, 6, all));
  expect(assign(sizes, 6, { strategy: 1 / 6, balance: 'compute' })).toEqual(
    assign(sizes, 6, { strategy: 'layer-wise', balance: 'compute' }),
  );
  expect(assign(sizes, 6, all).columns).toBe(1);
  expect(assign(sizes, 6, { strategy: 'layer-wise', balance: 'compute' }).columns).toBe(6);
});

test('balance by memory and by compute differ', () => {
  // 6³ is more than 5³ and 4³, 6² less than 5² and 4².
  const sizes = [
    { a: 6, g: 5 },
    { a: 4, g: 4 },
  ];
  const [compute, memory] = (['compute', 'memory'] as const).map((balance) => assign(sizes, 2, { ...all, balance }));
  expect(compute!.layers[1]).toEqual({ column: 0, a: 1, g: 1 });
  expect(memory!.layers[1]).toEqual({ column: 0, a: 1, g: 0 });
});

test('a fraction that does not come out even is refused with those that do', () => {
  expect(() => assign([{ a: 1, g: 1 }], 6, { strategy: 0.4, balance: 'compute' })).toThrow(
    'expected strategy · 6 ranks to be a whole number that divides 6 but received 0.4. Pass one of 1/6, 2/6, 3/6, 6/6.',
  );
  // Whole, but no divisor.
  expect(() => assign([{ a: 1, g: 1 }], 6, { strategy: 4 / 6, balance: 'compute' })).toThrow(/divides 6/);
  expect(assign([{ a: 1, g: 1 }], 6, { strategy: 0.3333333333, balance: 'compute' }).columns).toBe(3);
});

test('defaults, and options that are refused', () => {
  expect(settleDistribution(undefined)).toBeUndefined();
  expect(settleDistribution({})).toEqual(all);
  const refused = (options: object): (() => unknown) => {
    return () => settleDistribution(options as Distribution);
  };
  expect(refused({ strategy: 'all' })).toThrow(/'layer-wise' or a fraction in \(0, 1\] but received "?all/);
  expect(refused({ strategy: 0 })).toThrow(/received 0/);
  expect(refused({ strategy: 1.5 })).toThrow(/received 1.5/);
  expect(refused({ balance: 'time' })).toThrow(/balance/);
  expect(refused({ workers: 2 })).toThrow(/"workers"/);
});
