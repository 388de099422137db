/** Numbers of the upper triangle of an [n, n] matrix, its diagonal included. */
export const triangleLength = (n: number): number => (n * (n + 1)) / 2;

/** Writes the upper triangle of a symmetric matrix, times `factor`, row after row from `at` on; returns where it ends. */
export function packTriangle(
  into: Float32Array,
  at: number,
  matrix: ArrayLike<number>,
  n: number,
  factor: number,
): number {
  let end = at;
  for (let i = 0; i < n; i++) for (let j = i; j < n; j++) into[end++] = factor * (matrix[i * n + j] as number);
  return end;
}

/** The symmetric matrix of an upper triangle that begins at `at`. */
export function unpackTriangle(from: Float32Array, at: number, n: number): Float32Array {
  const matrix = new Float32Array(n * n);
  let next = at;
  for (let i = 0; i < n; i++) {
    for (let j = i; j < n; j++) matrix[i * n + j] = matrix[j * n + i] = from[next++] as number;
  }
  return matrix;
}
