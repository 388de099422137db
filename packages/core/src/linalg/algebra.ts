import type { Lapack } from '@frugal/native';
import { FrugalError } from '../errors.js';
import { checkSquare, finiteCopy, inPrecisionOf, type Matrix, matrixLike, symmetricCopy } from './matrix.js';

/** A = V·diag(values)·Vᵀ. */
export interface SymmetricEigen {
  /** The eigenvalues, ascending. */
  readonly values: Float64Array | Float32Array;
  /** V [n, n]: column j is the unit eigenvector of `values[j]`. Its sign, and a basis of equal values, are arbitrary. */
  readonly vectors: Matrix;
}

/** A = U·diag(s)·Vᵀ with k = min(rows, columns). */
export interface ThinSvd {
  /** U [rows, k], with orthonormal columns. */
  readonly u: Matrix;
  /** The singular values, descending, none negative. */
  readonly s: Float64Array | Float32Array;
  /** V [columns, k], with orthonormal columns. */
  readonly v: Matrix;
}

/**
 * Dense linear algebra on small and medium matrices of the main memory. All arithmetic is in double precision, also for
 * float32 data, whose results are rounded once at the end: covariance matrices of training are ill-conditioned, and
 * rounding them twice costs eigenvalues. Arguments are left as they are. Errors: `SHAPE`, `NON_FINITE`, `CONFIG`.
 */
export interface LinearAlgebra {
  /** The library beneath. */
  readonly name: 'lapack' | 'ml-matrix';
  /** For people: 'OpenBLAS 0.3.21, SkylakeX'; of ml-matrix also why it is not LAPACK. */
  readonly detail: string;
  /** Eigenvalues and eigenvectors of a symmetric matrix, O(n³). Asymmetry within rounding is averaged away. */
  symmetricEigen(a: Matrix): SymmetricEigen;
  /** The same beside the event loop: on a thread of libuv, or for ml-matrix in a worker of its own. */
  symmetricEigenAsync(a: Matrix): Promise<SymmetricEigen>;
  /**
   * Begins the same on a thread of libuv (with ml-matrix nothing begins); the function that is returned waits, which code can
   * do that cannot await.
   */
  startSymmetricEigen(a: Matrix): () => SymmetricEigen;
  /**
   * The lower triangular L of A = L·Lᵀ, n³/3 multiply-adds. Throws {@link NotPositiveDefiniteError}. A matrix that is
   * singular up to rounding may or may not pass: damp it, or use the eigenvalues.
   */
  cholesky(a: Matrix): Matrix;
  /** X of L·Lᵀ·X = B for all columns of B at once. Reads the lower triangle of `l` only; X has the precision of `b`. */
  choleskySolve(l: Matrix, b: Matrix): Matrix;
  /** The thin singular value decomposition of any matrix. */
  thinSvd(a: Matrix): ThinSvd;
}

/** Cholesky factorisation met a pivot that is zero or negative. */
export class NotPositiveDefiniteError extends FrugalError {
  /** The pivot, counted from 1: the leading block of this size is the first that is not positive definite. */
  readonly pivot: number;

  /** Names the pivot and the size of the matrix. */
  constructor(pivot: number, size: number) {
    super(
      'CONFIG',
      `cholesky: expected a positive definite matrix but pivot ${pivot} of ${size} is not positive. ` +
        'Add damping to the diagonal.',
    );
    this.pivot = pivot;
  }
}

const failed = (owner: string, error: unknown): never => {
  throw new FrugalError('KERNEL', `${owner}: ${(error as Error).message}. Scale the matrix to ordinary numbers.`, {
    cause: error,
  });
};

function attempt<T>(owner: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    return failed(owner, error);
  }
}

/** Checks, precision and errors around a library that overwrites arrays of doubles. */
export function algebraOn(name: LinearAlgebra['name'], library: Lapack): LinearAlgebra {
  const eigenOf = (a: Matrix, values: Float64Array, vectors: Float64Array): SymmetricEigen => ({
    values: inPrecisionOf(a, values),
    vectors: matrixLike(a, a.rows, a.rows, vectors),
  });
  return {
    name,
    detail: library.detail,
    symmetricEigen(a) {
      const work = symmetricCopy('symmetricEigen', 'a', a);
      return eigenOf(
        a,
        attempt('symmetricEigen', () => library.symmetricEigen(work, a.rows)),
        work,
      );
    },
    async symmetricEigenAsync(a) {
      const work = symmetricCopy('symmetricEigenAsync', 'a', a);
      const values = await library
        .symmetricEigenAsync(work, a.rows)
        .catch((error: unknown) => failed('symmetricEigenAsync', error));
      return eigenOf(a, values, work);
    },
    startSymmetricEigen(a) {
      const work = symmetricCopy('startSymmetricEigen', 'a', a);
      const join = attempt('startSymmetricEigen', () => library.startSymmetricEigen(work, a.rows));
      return () => eigenOf(a, attempt('startSymmetricEigen', join), work);
    },
    cholesky(a) {
      const work = symmetricCopy('cholesky', 'a', a);
      const pivot = attempt('cholesky', () => library.cholesky(work, a.rows));
      if (pivot > 0) throw new NotPositiveDefiniteError(pivot, a.rows);
      return matrixLike(a, a.rows, a.rows, work);
    },
    choleskySolve: (l, b) => choleskySolve(library, l, b),
    thinSvd(a) {
      const work = finiteCopy('thinSvd', 'a', a);
      const { u, s, v } = attempt('thinSvd', () => library.thinSvd(work, a.rows, a.columns));
      const k = s.length;
      return { u: matrixLike(a, a.rows, k, u), s: inPrecisionOf(a, s), v: matrixLike(a, a.columns, k, v) };
    },
  };
}

function choleskySolve(library: Lapack, l: Matrix, b: Matrix): Matrix {
  const owner = 'choleskySolve';
  const factor = finiteCopy(owner, 'l', l);
  checkSquare(owner, 'l', l);
  const x = finiteCopy(owner, 'b', b);
  const n = l.rows;
  if (b.rows !== n)
    throw new FrugalError(
      'SHAPE',
      `${owner}: expected b of ${n} rows, as l has, but received [${b.rows}, ${b.columns}].`,
    );
  for (let i = 0; i < n; i++) {
    const pivot = factor[i * n + i] as number;
    if (!(pivot > 0))
      throw new FrugalError(
        'CONFIG',
        `${owner}: expected a Cholesky factor, with a positive diagonal, but l[${i}, ${i}] is ${pivot}.`,
      );
  }
  attempt(owner, () => library.choleskySolve(factor, x, n, b.columns));
  return matrixLike(b, n, b.columns, x);
}
