import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { FrugalError } from '../errors.js';
import { stream } from '../rng.js';
import { type LinearAlgebra, NotPositiveDefiniteError } from './algebra.js';
import { linearAlgebra, unprepared } from './linear-algebra.js';
import { type Matrix, toMatrix, toTensor } from './matrix.js';

const matrix = (rows: number, columns: number, element: (i: number, j: number) => number): Matrix => ({
  rows,
  columns,
  data: Float64Array.from({ length: rows * columns }, (_, at) => element(Math.floor(at / columns), at % columns)),
});
const at = (m: Matrix, i: number, j: number): number => m.data[i * m.columns + j]!;
const transpose = (m: Matrix): Matrix => matrix(m.columns, m.rows, (i, j) => at(m, j, i));
const diagonal = (values: ArrayLike<number>): Matrix =>
  matrix(values.length, values.length, (i, j) => (i === j ? values[i]! : 0));
const identity = (n: number): Matrix => diagonal(new Array<number>(n).fill(1));
const single = (m: Matrix): Matrix => ({ ...m, data: Float32Array.from(m.data) });

function multiply(...factors: readonly Matrix[]): Matrix {
  return factors.reduce((a, b) =>
    matrix(a.rows, b.columns, (i, j) => {
      let sum = 0;
      for (let k = 0; k < a.columns; k++) sum += at(a, i, k) * at(b, k, j);
      return sum;
    }),
  );
}

const norm = (m: Matrix): number => Math.hypot(...m.data);
const distance = (a: Matrix, b: Matrix): number => norm(matrix(a.rows, a.columns, (i, j) => at(a, i, j) - at(b, i, j)));

/**
 * All these algorithms are backward stable: the residual is at most c·n·ε·‖A‖ (Higham, Accuracy and Stability, ch. 10;
 * Golub & Van Loan, 8.3) with ε = 2.2e-16. c = 50 leaves room for the constants and the test's own products.
 */
const tolerance = (n: number, scale: number): number => 50 * n * Number.EPSILON * scale;

const gaussian = (seed: number, rows: number, columns: number): Matrix => {
  const random = stream(seed, 'linalg', rows, columns);
  return matrix(rows, columns, () => random.normal());
};

/** Orthonormal columns by Gram–Schmidt, twice, so that they are orthonormal to rounding. */
function orthogonal(seed: number, n: number): Matrix {
  const q = gaussian(seed, n, n);
  for (let pass = 0; pass < 2; pass++) {
    for (let j = 0; j < n; j++) {
      for (let k = 0; k <= j; k++) {
        let dot = 0;
        for (let i = 0; i < n; i++) dot += at(q, i, j) * at(q, i, k);
        for (let i = 0; i < n; i++) {
          q.data[i * n + j] = k < j ? at(q, i, j) - dot * at(q, i, k) : at(q, i, j) / Math.sqrt(dot);
        }
      }
    }
  }
  return q;
}

/** Q·diag(values)·Qᵀ, symmetric to the last bit. */
function symmetricWith(seed: number, values: readonly number[]): Matrix {
  const q = orthogonal(seed, values.length);
  const a = multiply(q, diagonal(values), transpose(q));
  return matrix(a.rows, a.rows, (i, j) => (at(a, i, j) + at(a, j, i)) / 2);
}

/** Logarithmically spaced from 10^-decades to 1: a condition of 10^decades. */
const spread = (n: number, decades: number): number[] =>
  Array.from({ length: n }, (_, i) => 10 ** (n === 1 ? 0 : -decades * (1 - i / (n - 1))));

function expectOrthonormal(q: Matrix): void {
  expect(distance(multiply(transpose(q), q), identity(q.columns))).toBeLessThan(tolerance(q.rows, 1) * q.columns);
}

function expectEigen(algebra: Pick<LinearAlgebra, 'symmetricEigen'>, a: Matrix): void {
  const { values, vectors } = algebra.symmetricEigen(a);
  const error = distance(multiply(a, vectors), multiply(vectors, diagonal(values)));
  expect(error).toBeLessThanOrEqual(tolerance(a.rows, norm(a)));
  expectOrthonormal(vectors);
  expect([...values]).toEqual([...values].sort((x, y) => x - y));
}

function expectSvd(algebra: LinearAlgebra, a: Matrix): void {
  const { u, s, v } = algebra.thinSvd(a);
  const k = Math.min(a.rows, a.columns);
  expect([u.rows, u.columns, s.length, v.rows, v.columns]).toEqual([a.rows, k, k, a.columns, k]);
  const error = distance(multiply(u, diagonal(s), transpose(v)), a);
  expect(error).toBeLessThanOrEqual(tolerance(Math.max(a.rows, a.columns), norm(a)));
  expectOrthonormal(u);
  expectOrthonormal(v);
  expect([...s]).toEqual([...s].sort((x, y) => y - x));
  expect(s.every((x) => x >= 0)).toBe(true);
}

const size = fc.integer({ min: 1, max: 40 });
const seed = fc.integer({ min: 0, max: 2 ** 31 - 1 });
const decades = fc.integer({ min: 0, max: 12 });
const scale = fc.constantFrom(1e-8, 1, 1e8);

function eigenSuite(algebra: LinearAlgebra): void {
  it('decomposes symmetric matrices of any size, sign and scale', () => {
    fc.assert(
      fc.property(seed, size, decades, scale, (key, n, span, factor) => {
        const values = spread(n, span).map((x, i) => (i % 3 === 0 ? -x : x) * factor);
        expectEigen(algebra, symmetricWith(key, values));
      }),
      { numRuns: 60 },
    );
  });
  it('finds the eigenvalues of a matrix worked out by hand', () => {
    // [[2, 1], [1, 2]]: (1, −1)/√2 belongs to 1, (1, 1)/√2 to 3.
    const { values, vectors } = algebra.symmetricEigen({ rows: 2, columns: 2, data: Float64Array.of(2, 1, 1, 2) });
    expect(values[0]).toBeCloseTo(1, 14);
    expect(values[1]).toBeCloseTo(3, 14);
    expect(at(vectors, 0, 0) * at(vectors, 1, 0)).toBeCloseTo(-0.5, 14);
    expect(at(vectors, 0, 1) * at(vectors, 1, 1)).toBeCloseTo(0.5, 14);
  });
  it('keeps repeated eigenvalues orthogonal', () => {
    const a = symmetricWith(3, [1, 1, 1, 1, 5, 5, 5, -2, -2, 7]);
    expectEigen(algebra, a);
    const expected = [-2, -2, 1, 1, 1, 1, 5, 5, 5, 7];
    algebra.symmetricEigen(a).values.forEach((x, i) => expect(x).toBeCloseTo(expected[i]!, 12));
    expectEigen(algebra, identity(9));
  });
  it('takes zero, 1 × 1 and rank-deficient matrices', () => {
    expectEigen(
      algebra,
      matrix(6, 6, () => 0),
    );
    expect([...algebra.symmetricEigen(matrix(1, 1, () => -4)).values]).toEqual([-4]);
    const x = gaussian(5, 12, 3);
    const a = multiply(x, transpose(x));
    expectEigen(algebra, a);
    // Nine eigenvalues are zero up to rounding (Weyl: the error of each is at most that of the matrix).
    for (const value of algebra.symmetricEigen(a).values.slice(0, 9))
      expect(Math.abs(value)).toBeLessThan(tolerance(12, norm(a)));
  });
  it('leaves its argument alone, averages rounding away, and answers in the precision of the data', () => {
    const a = single(symmetricWith(8, spread(20, 3)));
    const crooked: Matrix = { ...a, data: a.data.slice() };
    crooked.data[1]! *= 1 + 2 ** -22;
    const before = crooked.data.slice();
    const { values, vectors } = algebra.symmetricEigen(crooked);
    expect(crooked.data).toEqual(before);
    expect(values).toBeInstanceOf(Float32Array);
    expect(vectors.data).toBeInstanceOf(Float32Array);
    // Rounded once, at the end: each element of V within 2⁻²⁴, so the residual within about n·2⁻²⁴·‖A‖.
    const error = distance(multiply(a, vectors), multiply(vectors, diagonal(values)));
    expect(error).toBeLessThan(20 * 2 ** -23 * norm(a));
  });
}

function asyncSuite(algebra: LinearAlgebra): void {
  it('gives the bits of the synchronous one, also several at a time', async () => {
    const matrices = [1, 7, 33, 40].map((n) => symmetricWith(n, spread(n, 4)));
    const results = await Promise.all(matrices.map((a) => algebra.symmetricEigenAsync(a)));
    expect(results).toEqual(matrices.map((a) => algebra.symmetricEigen(a)));
  });
  it('leaves the event loop free while n = 400 is decomposed', async () => {
    const x = gaussian(1, 400, 400);
    const a = matrix(400, 400, (i, j) => at(x, i, j) + at(x, j, i));
    // Warm: the checks and the copy of the input run before the promise and are not what is tested.
    await algebra.symmetricEigenAsync(a);
    let done = false;
    let ticks = 0;
    const timer = setInterval(() => {
      if (!done) ticks++;
    }, 1);
    const result = await algebra.symmetricEigenAsync(a);
    done = true;
    clearInterval(timer);
    // Work on this thread would let no timer fire before the continuation: 0.
    expect(ticks).toBeGreaterThanOrEqual(1);
    expect(result.values).toHaveLength(400);
  });
  it('rejects what the synchronous one refuses', async () => {
    await expect(algebra.symmetricEigenAsync(matrix(2, 2, (i) => i))).rejects.toSatisfy((e) =>
      FrugalError.is(e, 'CONFIG'),
    );
  });
}

function startSuite(algebra: LinearAlgebra): void {
  it('gives the bits of the synchronous one, joined in another order, and again', () => {
    const matrices = [1, 7, 33, 40, 12, 25].map((n) => symmetricWith(n, spread(n, 4)));
    const expected = matrices.map((a) => algebra.symmetricEigen(a));
    // More than libuv has threads.
    const joins = [...matrices, ...matrices.map(single)].map((a) => algebra.startSymmetricEigen(a));
    for (const i of [5, 0, 3, 1, 4, 2]) expect(joins[i]!()).toEqual(expected[i]);
    expect(joins[2]!()).toEqual(expected[2]);
    const rounded = matrices.map((a) => algebra.symmetricEigen(single(a)));
    expect(joins.slice(6).map((join) => join())).toEqual(rounded);
  });
  it('takes its copy when it starts', () => {
    const a = symmetricWith(4, spread(30, 2));
    const expected = algebra.symmetricEigen(a);
    const join = algebra.startSymmetricEigen(a);
    a.data.fill(0);
    expect(join()).toEqual(expected);
  });
  it('may be joined after the event loop has seen its end, or never', async () => {
    const a = symmetricWith(2, spread(20, 2));
    const join = algebra.startSymmetricEigen(a);
    for (let k = 0; k < 20; k++) algebra.startSymmetricEigen(a);
    // Queued behind them: by now all are done.
    await algebra.symmetricEigenAsync(a);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(join()).toEqual(algebra.symmetricEigen(a));
  });
  it('refuses when it starts, not when it is joined', () => {
    const bad = identity(3);
    bad.data[4] = Number.NaN;
    expect(() => algebra.startSymmetricEigen(bad)).toThrow(expect.objectContaining({ code: 'NON_FINITE' }));
    expect(() => algebra.startSymmetricEigen(gaussian(1, 2, 3))).toThrow(expect.objectContaining({ code: 'SHAPE' }));
  });
}

function choleskySuite(algebra: LinearAlgebra): void {
  it('factorises and solves, for conditions up to 1e12 and several right sides', () => {
    fc.assert(
      fc.property(seed, size, decades, scale, fc.integer({ min: 1, max: 9 }), (key, n, span, factor, columns) => {
        const a = symmetricWith(
          key,
          spread(n, span).map((x) => x * factor),
        );
        const l = algebra.cholesky(a);
        expect(distance(multiply(l, transpose(l)), a)).toBeLessThanOrEqual(tolerance(n, norm(a)));
        for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) expect(at(l, i, j)).toBe(0);
        const b = gaussian(key + 1, n, columns);
        const x = algebra.choleskySolve(l, b);
        // Backward stable: the residual is small against ‖A‖·‖X‖ whatever the condition, not X itself.
        expect(distance(multiply(a, x), b)).toBeLessThanOrEqual(tolerance(n, norm(a) * norm(x)));
      }),
      { numRuns: 60 },
    );
  });
  it('matches a factor worked out by hand', () => {
    // L = [[2, 0], [1, 3]]; L·Lᵀ = [[4, 2], [2, 10]]; X = (1, 1)ᵀ for B = (6, 12)ᵀ.
    const l = algebra.cholesky({ rows: 2, columns: 2, data: Float64Array.of(4, 2, 2, 10) });
    expect([...l.data]).toEqual([2, 0, 1, 3]);
    const x = algebra.choleskySolve(l, { rows: 2, columns: 1, data: Float64Array.of(6, 12) });
    x.data.forEach((value) => expect(value).toBeCloseTo(1, 14));
    expect([...algebra.cholesky(matrix(1, 1, () => 9)).data]).toEqual([3]);
  });
  it('reads the lower triangle of L only, and answers in the precision of B', () => {
    const l: Matrix = { rows: 2, columns: 2, data: Float64Array.of(2, 99, 1, 3) };
    const x = algebra.choleskySolve(l, { rows: 2, columns: 1, data: Float32Array.of(6, 12) });
    expect(x.data).toBeInstanceOf(Float32Array);
    x.data.forEach((value) => expect(value).toBeCloseTo(1, 6));
  });
  it.each([
    ['negative', [1, 2, -3, 4], 3],
    ['zero', [1, 0, 3], 2],
    ['zero matrix', [0, 0], 1],
    ['last', [5, 5, 5, -1], 4],
  ])('names the pivot that is not positive: %s', (_, values, pivot) => {
    try {
      algebra.cholesky(diagonal(values));
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(NotPositiveDefiniteError);
      expect(FrugalError.is(error, 'CONFIG')).toBe(true);
      expect((error as NotPositiveDefiniteError).pivot).toBe(pivot);
      expect((error as Error).message).toContain(`pivot ${pivot} of ${values.length}`);
    }
  });
  it('refuses a factor with a zero on the diagonal, and right sides of another height', () => {
    const b = matrix(2, 1, () => 1);
    expect(() => algebra.choleskySolve(diagonal([1, 0]), b)).toThrow(/l\[1, 1\] is 0/);
    expect(() => algebra.choleskySolve(identity(3), b)).toThrow(/3 rows.*\[2, 1\]/);
  });
}

function svdSuite(algebra: LinearAlgebra): void {
  it('decomposes tall, wide and square matrices of any condition and scale', () => {
    fc.assert(
      fc.property(seed, size, size, decades, scale, (key, m, n, span, factor) => {
        const x = gaussian(key, m, n);
        const columns = spread(n, span);
        expectSvd(
          algebra,
          matrix(m, n, (i, j) => at(x, i, j) * columns[j]! * factor),
        );
      }),
      { numRuns: 60 },
    );
  });
  it('takes zero, 1 × 1, rank-deficient and repeated', () => {
    expectSvd(
      algebra,
      matrix(5, 3, () => 0),
    );
    expectSvd(
      algebra,
      matrix(3, 5, () => 0),
    );
    expectSvd(
      algebra,
      matrix(1, 1, () => -2),
    );
    expectSvd(algebra, multiply(gaussian(2, 20, 3), gaussian(4, 3, 14)));
    expectSvd(algebra, multiply(gaussian(2, 9, 2), gaussian(4, 2, 25)));
    expectSvd(algebra, orthogonal(6, 12));
  });
  it('answers in the precision of the data', () => {
    const { u, s, v } = algebra.thinSvd(single(gaussian(3, 4, 6)));
    for (const data of [u.data, s, v.data]) expect(data).toBeInstanceOf(Float32Array);
  });
}

function refusals(algebra: LinearAlgebra): void {
  const symmetricOnly = [algebra.symmetricEigen, algebra.cholesky];
  it('refuses what is not symmetric, with the elements', () => {
    const a = symmetricWith(1, [1, 2, 3]);
    a.data[1]! += 1e-6;
    for (const f of symmetricOnly) expect(() => f(a)).toThrow(/symmetric but element \[1, 0\]/);
  });
  it.each([NaN, Infinity])('refuses %d, with its place', (bad) => {
    const a = identity(3);
    a.data[5] = bad;
    for (const f of [...symmetricOnly, algebra.thinSvd]) {
      expect(() => f(a)).toThrow(/row 1, column 2/);
      expect(() => f(a)).toThrow(expect.objectContaining({ code: 'NON_FINITE' }));
    }
    expect(() => algebra.choleskySolve(identity(3), a)).toThrow(/b has .* in row 1/);
  });
  it('refuses wrong shapes', () => {
    const shape: unknown = expect.objectContaining({ code: 'SHAPE' });
    for (const f of symmetricOnly) expect(() => f(gaussian(1, 2, 3))).toThrow(shape);
    for (const f of [...symmetricOnly, algebra.thinSvd]) {
      expect(() => f({ rows: 2, columns: 2, data: new Float64Array(3) })).toThrow(shape);
      expect(() => f({ rows: 0, columns: 0, data: new Float64Array(0) })).toThrow(shape);
    }
  });
}

const lapack = await linearAlgebra('lapack').catch((error: unknown) => error as Error);
const mlMatrix = await linearAlgebra('ml-matrix');

describe.each([
  ['lapack', lapack],
  ['ml-matrix', mlMatrix],
] as const)('linear algebra by %s', (_, algebra) => {
  if (algebra instanceof Error) {
    describe.skip(`absent: ${algebra.message}`, () => {
      it('is not tested', () => undefined);
    });
    return;
  }
  describe('symmetricEigen', () => eigenSuite(algebra));
  describe('symmetricEigenAsync', () => asyncSuite(algebra));
  describe('startSymmetricEigen', () => startSuite(algebra));
  describe('cholesky', () => choleskySuite(algebra));
  describe('thinSvd', () => svdSuite(algebra));
  describe('refusals', () => refusals(algebra));
});

describe.skipIf(lapack instanceof Error)('lapack and ml-matrix', () => {
  it('agree on what is unique: values, factors, and A⁻¹B up to the condition', () => {
    fc.assert(
      fc.property(seed, size, fc.integer({ min: 0, max: 4 }), (key, n, span) => {
        const a = symmetricWith(key, spread(n, span));
        const results = [lapack as LinearAlgebra, mlMatrix].map((algebra) => {
          const l = algebra.cholesky(a);
          return [
            diagonal(algebra.symmetricEigen(a).values),
            diagonal(algebra.thinSvd(a).s),
            l,
            algebra.choleskySolve(l, identity(n)),
          ] as const;
        });
        const [one, other] = results;
        for (const [i, x] of one!.entries()) {
          // Values differ by the backward error; L and the inverse by that times the condition, at most 1e4.
          const sensitivity = i < 2 ? norm(a) : 10 ** span * norm(x);
          expect(distance(x, other![i]!)).toBeLessThanOrEqual(tolerance(n, sensitivity));
        }
      }),
      { numRuns: 40 },
    );
  });
});

describe('linearAlgebra', () => {
  afterEach(() => void vi.unstubAllEnvs());
  it('falls back to ml-matrix and says why', async () => {
    vi.stubEnv('FRUGAL_NATIVE', 'off');
    const algebra = await linearAlgebra();
    expect(algebra.name).toBe('ml-matrix');
    expect(algebra.detail).toContain('FRUGAL_NATIVE=off');
  });
  it('refuses with ENGINE when LAPACK is insisted on', async () => {
    vi.stubEnv('FRUGAL_NATIVE', 'off');
    await expect(linearAlgebra('lapack')).rejects.toSatisfy((error) => FrugalError.is(error, 'ENGINE'));
    await expect(linearAlgebra('magma' as 'lapack')).rejects.toSatisfy((error) => FrugalError.is(error, 'CONFIG'));
  });
  it.skipIf(lapack instanceof Error)('takes LAPACK where it is', async () => {
    expect(await linearAlgebra()).toMatchObject({
      name: 'lapack',
      detail: expect.stringMatching(/^OpenBLAS/) as unknown,
    });
  });
});

describe('what is used before it was prepared', () => {
  it('says so with CONFIG, its owner and the remedy', () => {
    expect(() => unprepared('kfac')).toThrow(
      expect.objectContaining({
        code: 'CONFIG',
        message:
          'kfac: expected to be prepared before its first step. Await optimizer.prepare() before model.fit, or prepare() of what was opened.',
      }),
    );
  });
});

describe('toMatrix and toTensor', () => {
  it('copy, both ways', () => {
    const tensor = tf.tensor2d([1, 2, 3, 4, 5, 6], [2, 3]);
    const m = toMatrix(tensor);
    expect(m).toEqual({ rows: 2, columns: 3, data: Float32Array.of(1, 2, 3, 4, 5, 6) });
    const back = toTensor(m);
    m.data[0] = 99;
    expect(back.shape).toEqual([2, 3]);
    expect([...back.dataSync()]).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...tensor.dataSync()]).toEqual([1, 2, 3, 4, 5, 6]);
    tf.dispose([tensor, back]);
  });
  it('refuse other ranks and wrong lengths', () => {
    const vector = tf.tensor1d([1, 2]);
    expect(() => toMatrix(vector)).toThrow(/rank 2 but received \[2\]/);
    vector.dispose();
    expect(() => toTensor({ rows: 2, columns: 2, data: new Float64Array(3) })).toThrow(
      expect.objectContaining({ code: 'SHAPE' }),
    );
  });
});
