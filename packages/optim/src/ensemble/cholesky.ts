import { FrugalError } from '@frugal/core';

const at = (values: Float64Array, index: number): number => values[index] as number;

/**
 * Cholesky factor of a symmetric positive definite matrix in float64: A = L·Lᵀ.
 *
 * @param matrix - A [n, n], row after row; only the lower triangle is read
 * @param n - its order
 * @returns L [n, n], zero above the diagonal; n³/3 FLOP
 * @throws `NON_FINITE` when a pivot is not above zero, so A is not positive definite or holds a NaN
 */
export function cholesky(matrix: Float64Array, n: number): Float64Array {
  const factor = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = at(matrix, i * n + j);
      for (let k = 0; k < j; k++) sum -= at(factor, i * n + k) * at(factor, j * n + k);
      if (i !== j) {
        factor[i * n + j] = sum / at(factor, j * n + j);
      } else if (sum > 0 && Number.isFinite(sum)) {
        factor[i * n + i] = Math.sqrt(sum);
      } else {
        throw new FrugalError(
          'NON_FINITE',
          `cholesky: expected a positive definite matrix [${n}, ${n}] but pivot ${i} is ${sum}. Check that predictions are finite and the observation variance is above zero.`,
        );
      }
    }
  }
  return factor;
}

/**
 * Solves A·x = b in place, given the factor L of A from {@link cholesky}: forward, then backward substitution, 2n²
 * FLOP.
 *
 * @param factor - L [n, n]
 * @param n - its order
 * @param vector - b [n] on entry, x [n] on return
 */
export function choleskySolve(factor: Float64Array, n: number, vector: Float64Array): void {
  for (let i = 0; i < n; i++) {
    let sum = at(vector, i);
    for (let k = 0; k < i; k++) sum -= at(factor, i * n + k) * at(vector, k);
    vector[i] = sum / at(factor, i * n + i);
  }
  for (let i = n - 1; i >= 0; i--) {
    const value = at(vector, i) / at(factor, i * n + i);
    vector[i] = value;
    for (let k = 0; k < i; k++) vector[k] = at(vector, k) - value * at(factor, i * n + k);
  }
}
