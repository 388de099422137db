import { checkChoice, checkOptions, FrugalError, show } from '@frugal/core';

/** Who does what of K-FAC on many ranks. */
export interface Distribution {
  /**
   * How many ranks precondition one layer. `'communication-optimal'`: all, so that only factors and decompositions travel;
   * `'layer-wise'`: one, which alone keeps the layer's decompositions and sends the gradient in every step; or a fraction f
   * of the ranks between the two (KAISA), f·n a whole number that divides n. Default `'communication-optimal'`.
   */
  readonly strategy?: 'communication-optimal' | 'layer-wise' | number;
  /** What is spread evenly: n³ per factor, or n². Default `'compute'`. */
  readonly balance?: 'compute' | 'memory';
}

/** Sizes of a layer's two factors. */
export interface FactorSizes {
  /** Inputs: A is [a, a]. */
  readonly a: number;
  /** Outputs: G is [g, g]. */
  readonly g: number;
}

/** Where the work of one layer is done. */
export interface Placement {
  /** Column of the grid: its ranks precondition the layer, and send the result along their rows. */
  readonly column: number;
  /** Rank that decomposes A. */
  readonly a: number;
  /** Rank that decomposes G. */
  readonly g: number;
}

/**
 * Ranks as a grid, row after row: rank r is in row ⌊r / columns⌋ and column r mod columns. The ranks of a column are the
 * gradient workers of its layers; each row has one of every column.
 */
export interface Assignment {
  /** n / gradient workers. */
  readonly columns: number;
  /** One per layer. */
  readonly layers: readonly Placement[];
}

/** Checks the option. Throws `CONFIG`. */
export function settleDistribution(distribution: Distribution | undefined): Required<Distribution> | undefined {
  if (distribution === undefined) return undefined;
  checkOptions('kfac: distribution', distribution, ['strategy', 'balance']);
  const { strategy = 'communication-optimal' } = distribution;
  const named = strategy === 'communication-optimal' || strategy === 'layer-wise';
  if (!named && !(typeof strategy === 'number' && strategy > 0 && strategy <= 1)) {
    throw new FrugalError(
      'CONFIG',
      `kfac: expected strategy to be 'communication-optimal', 'layer-wise' or a fraction in (0, 1] but received ${show(strategy)}.`,
    );
  }
  const balance = checkChoice('kfac', 'balance', distribution.balance ?? 'compute', ['compute', 'memory']);
  return { strategy, balance };
}

/** Gradient workers of a layer. Throws `CONFIG` where a fraction does not come out even. */
function workersOf(strategy: Required<Distribution>['strategy'], ranks: number): number {
  if (strategy === 'communication-optimal') return ranks;
  if (strategy === 'layer-wise') return 1;
  const workers = Math.round(strategy * ranks);
  if (Math.abs(workers - strategy * ranks) < 1e-6 && workers >= 1 && ranks % workers === 0) return workers;
  const even = Array.from({ length: ranks }, (_, i) => i + 1).filter((n) => ranks % n === 0);
  throw new FrugalError(
    'CONFIG',
    `kfac: expected strategy · ${ranks} ranks to be a whole number that divides ${ranks} but received ${strategy}. Pass one of ${even.map((n) => `${n}/${ranks}`).join(', ')}.`,
  );
}

/** Index of the least load; the first of equal ones. */
const leastOf = (loads: readonly number[]): number => loads.indexOf(Math.min(...loads));

/** Indices by descending cost; equal ones in their order. */
const heaviestFirst = (costs: readonly number[]): number[] =>
  costs.map((_, i) => i).sort((i, j) => (costs[j] as number) - (costs[i] as number) || i - j);

/** The place of each cost, the heaviest first, each to the place that has least (longest processing time first). */
function spread(costs: readonly number[], places: number): number[] {
  const loads = new Array<number>(places).fill(0);
  const chosen: number[] = [];
  for (const index of heaviestFirst(costs)) {
    const place = leastOf(loads);
    loads[place] = (loads[place] as number) + (costs[index] as number);
    chosen[index] = place;
  }
  return chosen;
}

/**
 * Spreads layers over columns, then the factors of each column over its ranks, the heaviest first, each to whoever has least
 * (longest processing time first): no more than 4/3 of the best possible, of columns and of ranks in a column, Graham 1969.
 *
 * @throws FrugalError `CONFIG` where the fraction of `strategy` does not come out even
 */
export function assign(
  layers: readonly FactorSizes[],
  ranks: number,
  { strategy, balance }: Required<Distribution>,
): Assignment {
  const workers = workersOf(strategy, ranks);
  const columns = ranks / workers;
  const cost = (n: number): number => (balance === 'compute' ? n ** 3 : n ** 2);
  const columnOf = spread(
    layers.map(({ a, g }) => cost(a) + cost(g)),
    columns,
  );
  const placements: Placement[] = [];
  for (let column = 0; column < columns; column++) {
    const own = layers.map((_, i) => i).filter((i) => columnOf[i] === column);
    const factors = own.flatMap((i) => [(layers[i] as FactorSizes).a, (layers[i] as FactorSizes).g]);
    const rows = spread(factors.map(cost), workers);
    const rankAt = (k: number): number => (rows[k] as number) * columns + column;
    for (const [k, i] of own.entries()) placements[i] = { column, a: rankAt(2 * k), g: rankAt(2 * k + 1) };
  }
  return { columns, layers: placements };
}
