import {
  type Chain,
  clockAt,
  type Link,
  linearAlgebra,
  type Matrix,
  openChain,
  openScope,
  type Param,
  type State,
  stream,
  type UpdateLink,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { paramOf, type TraceOptions } from './bench.js';
import { contextOf } from './open.js';

/** The arithmetic of references: float64, in JavaScript on every engine. For tests only. */
const library = await linearAlgebra('ml-matrix');

/** A matrix by its elements. For tests only. */
export function dense(rows: number, columns: number, at: (i: number, j: number) => number): Matrix {
  return {
    rows,
    columns,
    data: Float64Array.from({ length: rows * columns }, (_, k) => at(Math.floor(k / columns), k % columns)),
  };
}

const get = (a: Matrix, i: number, j: number): number => a.data[i * a.columns + j] as number;

/** Element by element. For tests only. */
export const zip = (a: Matrix, b: Matrix, f: (x: number, y: number) => number): Matrix =>
  dense(a.rows, a.columns, (i, j) => f(get(a, i, j), get(b, i, j)));

/** Aᵀ. For tests only. */
export const transposed = (a: Matrix): Matrix => dense(a.columns, a.rows, (i, j) => get(a, j, i));

/** The product of matrices. For tests only. */
export const times = (...factors: readonly Matrix[]): Matrix =>
  factors.reduce((a, b) =>
    dense(a.rows, b.columns, (i, j) => {
      let sum = 0;
      for (let k = 0; k < a.columns; k++) sum += get(a, i, k) * get(b, k, j);
      return sum;
    }),
  );

/** Eigenvectors of a symmetric matrix, ascending. For tests only. */
export const basisOf = (a: Matrix): Matrix => library.symmetricEigen(a).vectors;

/** (A + ε·λ_max·I)^power of a symmetric matrix. For tests only. */
export function powerOf(a: Matrix, power: number, epsilon: number): Matrix {
  const { values, vectors } = library.symmetricEigen(a);
  const top = values.at(-1) as number;
  const scaled = dense(a.rows, a.rows, (i, j) => get(vectors, i, j) * ((values[j] as number) + epsilon * top) ** power);
  return times(scaled, transposed(vectors));
}

/** U·Vᵀ of G = U·Σ·Vᵀ. For tests only. */
export function orthogonalised(g: Matrix): Matrix {
  const { u, v } = library.thinSvd(g);
  return times(u, transposed(v));
}

/** Standard normal numbers. For tests only. */
export function normal(rows: number, columns: number, seed: number): Matrix {
  const random = stream(seed, 'kronecker');
  return dense(rows, columns, () => random.normal());
}

/** A chain of links, opened for these weights and prepared. For tests only. */
export async function openPrepared(links: readonly Link[], params: readonly Param[]): Promise<Chain> {
  const chain = openChain('test', links, contextOf(params));
  await chain.prepare();
  return chain;
}

/** Runs some steps of an opened chain on its weights; `gradient` has arrays by name. For tests only. */
export function runChain(
  chain: Chain,
  params: readonly Param[],
  gradient: (step: number) => Readonly<Record<string, ArrayLike<number>>>,
  [from, to]: readonly [number, number],
): void {
  for (let step = from; step < to; step++) {
    tf.tidy(() => {
      const gradients = gradient(step);
      const updates = params.flatMap(({ name, value }) => {
        const g = gradients[name];
        return g ? [[name, tf.tensor(Float32Array.from(g), value.shape)] as const] : [];
      });
      chain.apply(new Map(updates), openScope(clockAt(step, 100), 0));
    });
  }
}

/** Weights after each step, of one weight `w` and a link that must be prepared; frees everything. For tests only. */
export async function tracePrepared(
  link: UpdateLink,
  { start, shape, gradient, steps }: Omit<TraceOptions, 'gradient'> & { gradient: (step: number) => ArrayLike<number> },
): Promise<number[][]> {
  const param = paramOf(start, shape);
  const chain = await openPrepared([link], [param]);
  try {
    return Array.from({ length: steps }, (_, step) => {
      runChain(chain, [param], () => ({ w: gradient(step) }), [step, step + 1]);
      return [...param.value.dataSync()];
    });
  } finally {
    chain.dispose();
    param.value.dispose();
  }
}

/** Writes one state into another in place, except names that hold `without`. For tests only. */
export function restore(from: State, to: State, without?: string): void {
  for (const [name, kept] of to) {
    if (without !== undefined && name.includes(without)) continue;
    const value = from.get(name);
    if (kept instanceof Float64Array) kept.set(value as Float64Array);
    else tf.tidy(() => kept.assign((value as tf.Variable).clone()));
  }
}

/** A symmetric matrix of random eigenvectors whose eigenvalues fall from 1 to 1/condition. */
function conditioned(n: number, condition: number, seed: number): Matrix {
  const q = basisOf(times(normal(n, n, seed), transposed(normal(n, n, seed))));
  const scaled = dense(n, n, (i, j) => get(q, i, j) * condition ** (-j / (n - 1)));
  return times(scaled, transposed(q));
}

/** ½·|A·W·B − C|² after some steps from W = 0, relative to the start; A [8, 8], B [6, 6] of condition 10. For tests only. */
export async function quadratic(links: readonly Link[], steps: number): Promise<number> {
  const [a, b, c] = [conditioned(8, 10, 1), conditioned(6, 10, 2), normal(8, 6, 3)];
  const param = paramOf(new Array<number>(48).fill(0), [8, 6]);
  const residual = (): Matrix => {
    const w = param.value.dataSync();
    return zip(
      times(
        a,
        dense(8, 6, (i, j) => w[6 * i + j] as number),
        b,
      ),
      c,
      (x, y) => x - y,
    );
  };
  const loss = ({ data }: Matrix): number => Math.hypot(...data) ** 2;
  const start = loss(residual());
  const chain = await openPrepared(links, [param]);
  runChain(chain, [param], () => ({ w: times(a, residual(), b).data }), [0, steps]);
  const end = loss(residual());
  param.value.dispose();
  chain.dispose();
  return end / start;
}
