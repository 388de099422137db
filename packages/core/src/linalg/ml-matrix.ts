import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import type { Lapack } from '@frugal/native';
import { CholeskyDecomposition, EVD, Matrix, SVD } from 'ml-matrix';

const wrap = (data: Float64Array, rows: number, columns: number): Matrix =>
  Matrix.from1DArray(rows, columns, data as unknown as number[]);

/** The work of `symmetricEigenAsync`. Plain JavaScript in a string: a file would have to survive bundlers and tests. */
const WORKER = `
const { parentPort, workerData } = require('node:worker_threads');
const { library, a, n } = workerData;
const { EVD, Matrix } = require(library);
const { realEigenvalues, eigenvectorMatrix } = new EVD(Matrix.from1DArray(n, n, a), { assumeSymmetric: true });
parentPort.postMessage([Float64Array.from(realEigenvalues), Float64Array.from(eigenvectorMatrix.to1DArray())]);
`;

type EigenPair = readonly [values: Float64Array, vectors: Float64Array];

function eigenInWorker(a: Float64Array, n: number): Promise<EigenPair> {
  const library = createRequire(import.meta.url).resolve('ml-matrix');
  // No execArgv: the loaders of the parent (tests, tsx) would cost more than the work.
  const worker = new Worker(WORKER, { eval: true, execArgv: [], workerData: { library, a, n } });
  return new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
    worker.once('exit', (code) => reject(new Error(`the worker of ml-matrix ended with ${code}`)));
  });
}

function cholesky(a: Float64Array, n: number): number {
  const factor = new CholeskyDecomposition(wrap(a, n, n)).lowerTriangularMatrix;
  // It goes on after a pivot that is not positive, with 0 in its place: the first 0 is the one (cholesky.js, 6.15).
  for (let i = 0; i < n; i++) if (!(factor.get(i, i) > 0)) return i + 1;
  a.set(factor.to1DArray());
  return 0;
}

/** Forward and back substitution, row by row. (The library's own solve() needs A again, and factorises it anew.) */
function choleskySolve(l: Float64Array, b: Float64Array, n: number, columns: number): void {
  const at = (i: number, j: number): number => l[i * n + j] as number;
  const subtract = (target: number, source: number, factor: number): void => {
    for (let c = 0; c < columns; c++) {
      b[target * columns + c] = (b[target * columns + c] as number) - factor * (b[source * columns + c] as number);
    }
  };
  const divide = (row: number): void => {
    for (let c = 0; c < columns; c++) b[row * columns + c] = (b[row * columns + c] as number) / at(row, row);
  };
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) subtract(i, k, at(i, k));
    divide(i);
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) subtract(i, k, at(k, i));
    divide(i);
  }
}

/** The functions of LAPACK by ml-matrix, in JavaScript: right everywhere, slower everywhere. */
export function mlMatrix(reason: string): Lapack {
  return {
    detail: `ml-matrix (${reason})`,
    symmetricEigen(a, n) {
      const { realEigenvalues, eigenvectorMatrix } = new EVD(wrap(a, n, n), { assumeSymmetric: true });
      a.set(eigenvectorMatrix.to1DArray());
      return Float64Array.from(realEigenvalues);
    },
    async symmetricEigenAsync(a, n) {
      const [values, vectors] = await eigenInWorker(a, n);
      a.set(vectors);
      return values;
    },
    startSymmetricEigen(a, n) {
      // Once: it overwrites its argument.
      let values: Float64Array | undefined;
      return () => (values ??= this.symmetricEigen(a, n));
    },
    cholesky,
    choleskySolve,
    thinSvd(a, rows, columns) {
      const svd = new SVD(wrap(a, rows, columns), { autoTranspose: true });
      const [u, s, v] = [svd.leftSingularVectors, svd.diagonal, svd.rightSingularVectors];
      return {
        u: Float64Array.from(u.to1DArray()),
        s: Float64Array.from(s),
        v: Float64Array.from(v.to1DArray()),
      };
    },
  };
}
