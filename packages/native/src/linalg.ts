import { loadAddon } from './addon.js';

/**
 * Dense linear algebra by LAPACK, in double precision, on row-major arrays. Arguments are overwritten and not checked,
 * except for their lengths: `linearAlgebra()` of `@frugal/core` is the interface for people.
 */
export interface Lapack {
  /** For people: 'OpenBLAS 0.3.21, SkylakeX'. */
  readonly detail: string;
  /** Turns the symmetric `a` [n, n] into its eigenvectors, in columns; returns the eigenvalues, ascending. */
  symmetricEigen(a: Float64Array, n: number): Float64Array;
  /** The same on a thread of libuv. `a` must be left alone until it is done. */
  symmetricEigenAsync(a: Float64Array, n: number): Promise<Float64Array>;
  /** As `symmetricEigenAsync`, but the function that is returned waits. */
  startSymmetricEigen(a: Float64Array, n: number): () => Float64Array;
  /** Turns `a` [n, n] into its lower Cholesky factor. Returns 0, or the pivot, counted from 1, that is not positive. */
  cholesky(a: Float64Array, n: number): number;
  /** Turns `b` [n, columns] into X of L·Lᵀ·X = B; reads the lower triangle of `l` only. */
  choleskySolve(l: Float64Array, b: Float64Array, n: number, columns: number): void;
  /** A = U·diag(s)·Vᵀ with k = min(rows, columns) columns in U and V; s descending. `a` is lost. */
  thinSvd(
    a: Float64Array,
    rows: number,
    columns: number,
  ): { readonly u: Float64Array; readonly s: Float64Array; readonly v: Float64Array };
}

/**
 * Opens LAPACK; registers no backend. OpenBLAS is loaded into the process by the first call, with one thread.
 * Throws, with the reason and what to do, when there is no addon or no OpenBLAS.
 */
export function loadLapack(): Lapack {
  const addon = loadAddon();
  return {
    detail: detailOf(() => addon.lapackDetail()),
    symmetricEigen(a, n) {
      const values = new Float64Array(n);
      addon.lapackEigen(a, values, n);
      return values;
    },
    async symmetricEigenAsync(a, n) {
      const values = new Float64Array(n);
      await addon.lapackEigenAsync(a, values, n);
      return values;
    },
    startSymmetricEigen(a, n) {
      const values = new Float64Array(n);
      const join = addon.lapackEigenStart(a, values, n);
      return () => {
        join();
        return values;
      };
    },
    cholesky: (a, n) => addon.lapackCholesky(a, n),
    choleskySolve: (l, b, n, columns) => addon.lapackCholeskySolve(l, b, n, columns),
    thinSvd(a, rows, columns) {
      const k = Math.min(rows, columns);
      const [u, s, v] = [new Float64Array(rows * k), new Float64Array(k), new Float64Array(columns * k)];
      addon.lapackSvd(a, u, s, v, rows, columns);
      return { u, s, v };
    },
  };
}

function detailOf(read: () => string): string {
  try {
    return read();
  } catch (error) {
    throw new Error(`LAPACK could not be opened: ${(error as Error).message}. On Debian it is in libopenblas0.`);
  }
}
