import { stream } from '@frugal/core';
import { entry, square, type Topology } from '../../topology/topology.js';
import type { DecentralizedLink, DecentralizedReport } from '../link.js';
import { simulate } from '../simulate.js';

/** Quadratic losses f_i = ½(x − c)ᵀH_i(x − c) + …, one per rank, given by their gradients H_i x − h_i. For tests only. */
export interface Quadratics {
  readonly ranks: number;
  readonly width: number;
  /** H_i [width, width], row after row. */
  readonly hessians: readonly Float64Array[];
  readonly offsets: readonly Float64Array[];
  /** Where Σ_i ∇f_i = 0. */
  readonly minimum: Float64Array;
  gradient(rank: number, x: Float64Array): Float64Array;
  /** b²: mean ‖∇f_i‖² at the minimum. */
  readonly heterogeneity: number;
}

/** x of A·x = b by Gauss elimination with row pivots; A is [n, n] row after row. For tests only. */
export function solve(a: Float64Array, b: Float64Array): Float64Array {
  const n = b.length;
  const m = Array.from({ length: n }, (_, i) => [...a.subarray(i * n, (i + 1) * n), b[i]!]);
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(m[i]![k]!) > Math.abs(m[pivot]![k]!)) pivot = i;
    [m[k], m[pivot]] = [m[pivot]!, m[k]!];
    for (let i = k + 1; i < n; i++) {
      const factor = m[i]![k]! / m[k]![k]!;
      for (let j = k; j <= n; j++) m[i]![j]! -= factor * m[k]![j]!;
    }
  }
  const x = new Float64Array(n);
  for (let i = n - 1; i >= 0; i--) {
    let rest = m[i]![n]!;
    for (let j = i + 1; j < n; j++) rest -= m[i]![j]! * x[j]!;
    x[i] = rest / m[i]![i]!;
  }
  return x;
}

/** Σ over rows: H·x. For tests only. */
export function times(h: Float64Array, x: Float64Array): Float64Array {
  const n = x.length;
  return Float64Array.from({ length: n }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += h[i * n + j]! * x[j]!;
    return sum;
  });
}

/**
 * Linear regression, 50 examples per rank: A_i N(0, 1), targets from x* + ½N(0, 1) drawn for each rank, divided by 50.
 * For tests only.
 */
export function regression(ranks = 8, width = 10, seed = 1, examples = 50): Quadratics {
  const random = stream(seed, 'quadratics');
  const truth = Float64Array.from({ length: width }, () => random.normal());
  const hessians: Float64Array[] = [];
  const offsets: Float64Array[] = [];
  for (let rank = 0; rank < ranks; rank++) {
    const a = Array.from({ length: examples }, () => Float64Array.from({ length: width }, () => random.normal()));
    const own = truth.map((x) => x + 0.5 * random.normal());
    const h = new Float64Array(width * width);
    for (const row of a) {
      for (let i = 0; i < width; i++)
        for (let j = 0; j < width; j++) h[i * width + j]! += (row[i]! * row[j]!) / examples;
    }
    hessians.push(h);
    offsets.push(times(h, own));
  }
  const sum = (parts: readonly Float64Array[]): Float64Array =>
    parts.reduce((all, part) => all.map((v, i) => v + part[i]!));
  const minimum = solve(sum(hessians), sum(offsets));
  const gradient = (rank: number, x: Float64Array): Float64Array =>
    times(hessians[rank]!, x).map((v, i) => v - offsets[rank]![i]!);
  const heterogeneity =
    hessians.reduce((all, _, rank) => all + gradient(rank, minimum).reduce((s, v) => s + v * v, 0), 0) / ranks;
  return { ranks, width, hessians, offsets, minimum, gradient, heterogeneity };
}

/** Mean over the ranks of ‖x_i − x*‖². For tests only. */
export function bias(problem: Quadratics, weights: readonly Float64Array[]): number {
  const one = (x: Float64Array): number => x.reduce((s, v, i) => s + (v - problem.minimum[i]!) ** 2, 0);
  return weights.reduce((all, x) => all + one(x), 0) / weights.length;
}

/** Mean over the ranks of ‖x_i − x̄‖². For tests only. */
export function disagreement(weights: readonly ArrayLike<number>[]): number {
  const n = weights.length;
  let sum = 0;
  for (let k = 0; k < weights[0]!.length; k++) {
    const mean = weights.reduce((all, x) => all + x[k]!, 0) / n;
    for (const x of weights) sum += (x[k]! - mean) ** 2 / n;
  }
  return sum;
}

/**
 * The fixed point, by a dense solve: x = W x − γ·M·∇f(x), with M = W where the gradient goes through the exchange (DSGD) and
 * M = I where it does not (adapt while combining). For tests only.
 */
export function fixedPoint(
  problem: Quadratics,
  w: (i: number, j: number) => number,
  rate: number,
  through: (i: number, j: number) => number = w,
): Float64Array[] {
  const { ranks, width, hessians, offsets } = problem;
  const size = ranks * width;
  const a = new Float64Array(size * size);
  const b = new Float64Array(size);
  for (let i = 0; i < ranks; i++) {
    for (let j = 0; j < ranks; j++) {
      for (let r = 0; r < width; r++) {
        const row = i * width + r;
        a[row * size + j * width + r]! += (i === j ? 1 : 0) - w(i, j);
        for (let c = 0; c < width; c++) {
          a[row * size + j * width + c]! += rate * through(i, j) * hessians[j]![r * width + c]!;
        }
        b[row]! += rate * through(i, j) * offsets[j]![r]!;
      }
    }
  }
  const x = solve(a, b);
  return Array.from({ length: ranks }, (_, i) => x.slice(i * width, (i + 1) * width));
}

/** Largest |a − b| over all ranks. For tests only. */
export function distance(a: readonly ArrayLike<number>[], b: readonly ArrayLike<number>[]): number {
  let worst = 0;
  a.forEach((x, i) => {
    for (let k = 0; k < x.length; k++) {
      const d = Math.abs(x[k]! - b[i]![k]!);
      worst = Number.isNaN(d) ? Number.NaN : Math.max(worst, d);
    }
  });
  return worst;
}

/** All ranks' vectors as one reference moves them. For tests only. */
export type Positions = readonly Float64Array[];

/** a·X + b·Y. For tests only. */
export const plus = (a: number, x: Positions, b: number, y: Positions): Positions =>
  x.map((row, i) => row.map((value, k) => a * value + b * y[i]![k]!));

/** W·X, for the weights of a topology at a step. For tests only. */
export function mixed(topology: Topology, x: Positions, step = 0): Positions {
  const w = topology.weights(x.length, step);
  return x.map((row, i) => row.map((_, k) => x.reduce((sum, other, j) => sum + entry(w, i, j) * other[k]!, 0)));
}

/** The mean over the ranks, for each rank. For tests only. */
export const averaged = (x: Positions): Positions =>
  x.map((row) => row.map((_, k) => x.reduce((sum, other) => sum + other[k]! / x.length, 0)));

/** Vectors of zeros. For tests only. */
export const zeros = (problem: Quadratics): Positions =>
  Array.from({ length: problem.ranks }, () => new Float64Array(problem.width));

/** Gradients of all ranks. For tests only. */
export const gradients = (problem: Quadratics, x: Positions): Positions => x.map((row, i) => problem.gradient(i, row));

/** Runs a link on a problem from zero. For tests only. */
export const run = (
  link: DecentralizedLink,
  problem: Quadratics,
  steps: number,
  start: Positions = zeros(problem),
): Promise<Float64Array[]> => simulate(link, { start, gradient: problem.gradient, steps });

/** What each rank has sent in a run from zero. For tests only. */
export async function reportsOf(
  link: DecentralizedLink,
  problem: Quadratics,
  steps: number,
): Promise<readonly DecentralizedReport[]> {
  let found: readonly DecentralizedReport[] = [];
  const { gradient } = problem;
  await simulate(link, { start: zeros(problem), gradient, steps, report: (reports) => void (found = reports) });
  if (found.length !== problem.ranks) throw new Error(`${found.length} reports of ${problem.ranks} ranks`);
  return found;
}

/** The fixed point of DSGD(rate) on a topology. For tests only. */
export function dsgdLimit(problem: Quadratics, topology: Topology, rate: number): Float64Array[] {
  const w = topology.weights(problem.ranks, 0);
  return fixedPoint(problem, (i, j) => entry(w, i, j), rate);
}

/** No exchange at all: what a method must not converge with. For tests only. */
export const isolated: Topology = {
  name: 'isolated',
  period: () => 1,
  weights: (size) => square(size, (i, j) => (i === j ? 1 : 0)),
};

/** Weights of two ranks of one number each, after each of two steps with the constant gradients 0 and 2. For tests only. */
export async function traceOfTwo(link: DecentralizedLink, start: readonly [number, number]): Promise<number[][]> {
  const seen: number[][] = [];
  await simulate(link, {
    start: start.map((x) => [x]),
    gradient: (rank) => [2 * rank],
    steps: 2,
    observe: (all) => void seen.push(all.map((x) => x[0]!)),
  });
  return seen;
}
