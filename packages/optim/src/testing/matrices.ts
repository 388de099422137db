/** Rows of a matrix in double precision. For tests only. */
export type Rows = number[][];

/** [rows, columns] of one rule. For tests only. */
export const fill = (rows: number, columns: number, value: (i: number, j: number) => number): Rows =>
  Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => value(i, j)));

/** Cuts a flat array into rows. For tests only. */
export const rowsOf = (values: ArrayLike<number>, columns: number): Rows =>
  fill(values.length / columns, columns, (i, j) => values[i * columns + j]!);

/** The transpose. For tests only. */
export const transpose = (a: Rows): Rows => fill(a[0]!.length, a.length, (i, j) => a[j]![i]!);

/** The product. For tests only. */
export const product = (a: Rows, b: Rows): Rows =>
  fill(a.length, b[0]!.length, (i, j) => a[i]!.reduce((sum, value, k) => sum + value * b[k]![j]!, 0));

/** f of each element. For tests only. */
export const map = (a: Rows, f: (value: number, i: number, j: number) => number): Rows =>
  a.map((row, i) => row.map((value, j) => f(value, i, j)));

/** a + factor·b. For tests only. */
export const plus = (a: Rows, b: Rows, factor = 1): Rows => map(a, (value, i, j) => value + factor * b[i]![j]!);

/** Σ a ⊙ b. For tests only. */
export const inner = (a: Rows, b: Rows): number =>
  a.reduce((sum, row, i) => sum + row.reduce((s, value, j) => s + value * b[i]![j]!, 0), 0);

/** The identity. For tests only. */
export const eye = (n: number): Rows => fill(n, n, (i, j) => (i === j ? 1 : 0));

/** X of A·X = B, by elimination with pivots. For tests only. */
export function solve(a: Rows, b: Rows): Rows {
  const n = a.length;
  const work = a.map((row, i) => [...row, ...b[i]!]);
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k; i < n; i++) if (Math.abs(work[i]![k]!) > Math.abs(work[pivot]![k]!)) pivot = i;
    [work[k], work[pivot]] = [work[pivot]!, work[k]!];
    for (let i = 0; i < n; i++) {
      if (i === k) continue;
      const factor = work[i]![k]! / work[k]![k]!;
      for (let j = k; j < work[i]!.length; j++) work[i]![j]! -= factor * work[k]![j]!;
    }
  }
  return work.map((row, i) => row.slice(n).map((value) => value / row[i]!));
}

/** A ⊗ G, in the order of a matrix [a, g] flattened row after row. For tests only. */
export function kronecker(a: Rows, g: Rows): Rows {
  const m = g.length;
  return fill(a.length * m, a.length * m, (i, j) => a[Math.floor(i / m)]![Math.floor(j / m)]! * g[i % m]![j % m]!);
}
