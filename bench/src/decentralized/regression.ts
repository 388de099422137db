import {
  awcDmsgd,
  d2,
  daDmsgd,
  decentlam,
  type DecentralizedLink,
  dmsgd,
  edm,
  momentumTracking,
  qgDmsgd,
  ring,
  simulate,
} from '@frugal/cluster';
import { linearAlgebra, stream } from '@frugal/core';
import { mean } from '../results.js';

const NODES = 8;
const ROWS = 50;
const COLUMNS = 10;
const RATE = 1e-3;

/** Momenta of the table. */
export const MOMENTA = [0, 0.5, 0.8, 0.9, 0.95] as const;

/** f_i(x) = ½xᵀH_i·x − c_iᵀx of one node. */
interface Quadratic {
  readonly h: Float64Array;
  readonly c: Float64Array;
}

/**
 * Linear regression with data that differ from node to node: f_i = |A_i·x − b_i|² / (2·50), A_i of 50 × 10 from N(0, 1),
 * b_i = A_i·x_i, x_i = x* + N(0, ¼). Written out as quadratics, which costs nothing more and rounds less.
 */
function problem(seed: number): Quadratic[] {
  const random = stream(seed, 'regression');
  const common = Float64Array.from({ length: COLUMNS }, () => random.normal());
  return Array.from({ length: NODES }, () => {
    const own = common.map((value) => value + 0.5 * random.normal());
    const h = new Float64Array(COLUMNS * COLUMNS);
    for (let row = 0; row < ROWS; row++) {
      const a = Float64Array.from({ length: COLUMNS }, () => random.normal());
      for (let i = 0; i < COLUMNS; i++)
        for (let j = 0; j < COLUMNS; j++)
          h[i * COLUMNS + j] = (h[i * COLUMNS + j] as number) + ((a[i] as number) * (a[j] as number)) / ROWS;
    }
    return { h, c: product(h, own) };
  });
}

function product(h: Float64Array, x: ArrayLike<number>): Float64Array {
  return Float64Array.from({ length: COLUMNS }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < COLUMNS; j++) sum += (h[i * COLUMNS + j] as number) * (x[j] as number);
    return sum;
  });
}

/** The minimum of Σ f_i. */
async function optimum(nodes: readonly Quadratic[]): Promise<Float64Array> {
  const algebra = await linearAlgebra('auto');
  const h = new Float64Array(COLUMNS * COLUMNS);
  const c = new Float64Array(COLUMNS);
  for (const node of nodes) {
    for (const [i, value] of node.h.entries()) h[i] = (h[i] as number) + value;
    for (const [i, value] of node.c.entries()) c[i] = (c[i] as number) + value;
  }
  const factor = algebra.cholesky({ rows: COLUMNS, columns: COLUMNS, data: h });
  return Float64Array.from(algebra.choleskySolve(factor, { rows: COLUMNS, columns: 1, data: c }).data);
}

/** Steps after which nothing is expected to move any more. */
const LONGEST = 120_000;
/** A run ends when no weight has moved by more than this in a step. */
const STILL = 1e-15;

/** (1/n)·Σ|x_i − x*|² where a method comes to rest, with full gradients. */
async function bias(link: DecentralizedLink, nodes: readonly Quadratic[], best: Float64Array): Promise<number> {
  const before = nodes.map(() => new Float64Array(COLUMNS));
  const ends = await simulate(link, {
    start: nodes.map(() => new Float64Array(COLUMNS)),
    gradient: (rank, x) => {
      const { h, c } = nodes[rank] as Quadratic;
      return product(h, x).map((value, i) => value - (c[i] as number));
    },
    steps: LONGEST,
    observe(weights) {
      let moved = 0;
      for (const [rank, x] of weights.entries()) {
        const old = before[rank] as Float64Array;
        for (const [i, value] of x.entries()) moved = Math.max(moved, Math.abs(value - (old[i] as number)));
        old.set(x);
      }
      return moved > STILL;
    },
  });
  const squares = ends.map((x) => x.reduce((sum, value, i) => sum + (value - (best[i] as number)) ** 2, 0));
  return mean(squares);
}

/** The methods of the table; the first three are those of the claim. */
const METHODS = { dmsgd, decentlam, qgDmsgd, awcDmsgd, daDmsgd, d2, momentumTracking, edm };

/** The bias of each method for each momentum. */
export async function regressionBias(seed: number, quick: boolean): Promise<Map<string, number[]>> {
  const nodes = problem(seed);
  const best = await optimum(nodes);
  const found = new Map<string, number[]>();
  for (const [name, make] of Object.entries(METHODS).slice(0, quick ? 3 : undefined)) {
    const row: number[] = [];
    for (const momentum of MOMENTA)
      row.push(await bias(make({ learningRate: RATE, momentum, topology: ring() }), nodes, best));
    found.set(name, row);
    process.stderr.write(`regression: ${name}\n`);
  }
  return found;
}
