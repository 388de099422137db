import { linearAlgebra, type LinearAlgebra, type Matrix } from '@frugal/core';
import { describeEngines, relativeError } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { denseSolve, secondMoment, splitSolve } from '../testing/kfac-reference.js';
import { normals } from '../testing/kfac-runs.js';
import { fill, map, type Rows } from '../testing/matrices.js';
import { createDecompositions, splitDamping } from './decompositions.js';
import { eigenForm } from './eigen.js';
import type { Form } from './form.js';
import { inverseForm } from './inverse.js';
import type { Layer } from './layers.js';
import { packTriangle, triangleLength, unpackTriangle } from './triangles.js';

const matrixOf = (rows: Rows): Matrix => ({
  rows: rows.length,
  columns: rows.length,
  data: Float32Array.from(rows.flat()),
});

/** Factors of full rank, of rank 1, and zero. */
const CASES: readonly [string, Rows, Rows][] = [
  ['full rank', secondMoment(normals(1, 20, 5)), secondMoment(normals(2, 20, 3))],
  ['rank one', secondMoment(normals(3, 1, 5)), secondMoment(normals(4, 1, 3))],
  [
    'scales apart',
    map(secondMoment(normals(1, 20, 5)), (v) => 1e4 * v),
    map(secondMoment(normals(2, 20, 3)), (v) => 1e-4 * v),
  ],
  ['A of zeros', fill(5, 5, () => 0), secondMoment(normals(2, 20, 3))],
];

const LIBRARIES = await Promise.all(
  (['lapack', 'ml-matrix'] as const).map(
    async (name) => [name, await linearAlgebra(name).catch(() => undefined)] as const,
  ),
);

await describeEngines('forms', () => {
  describe.each(LIBRARIES)('by %s', (_library, opened) => {
    const algebra = opened as LinearAlgebra;
    if (!opened) {
      test.skip('is not to be had here');
      return;
    }

    /** P by a form. */
    function solved(form: Form, gradient: Rows, a: Rows, g: Rows, damping: number): Rows {
      const parts = splitDamping(matrixOf(a), matrixOf(g), damping);
      const [left, right] = [form.start(algebra, matrixOf(a), parts.a)(), form.start(algebra, matrixOf(g), parts.g)()];
      expect([left.length, right.length]).toEqual([form.length(5), form.length(3)]);
      return tf.tidy(() =>
        form
          .precondition(tf.tensor3d([gradient]), form.open([left], 5), form.open([right], 3), damping)
          .squeeze<tf.Tensor2D>([0])
          .arraySync(),
      );
    }

    test.each(CASES)('%s: both are their formulas', (_name, a, g) => {
      const gradient = normals(9, 5, 3);
      for (const damping of [1, 0.01]) {
        const eigen = solved(eigenForm, gradient, a, g, damping);
        expect(relativeError(eigen.flat(), denseSolve(gradient, { a, g }, damping).flat())).toBeLessThan(1e-4);
      }
      if (a[0]![0] === 0) return;
      const inverse = solved(inverseForm, gradient, a, g, 0.01);
      expect(relativeError(inverse.flat(), splitSolve(gradient, { a, g }, 0.01).flat())).toBeLessThan(1e-3);
    });

    test('eigenvalues below zero are taken as zero', () => {
      // Eigenvalues 3 and −1.
      const tensors = tf.tidy(() => {
        const values = eigenForm.start(
          algebra,
          matrixOf([
            [1, 2],
            [2, 1],
          ]),
          0,
        )();
        return eigenForm.open([values], 2).map((tensor) => [...tensor.dataSync()]);
      });
      expect(relativeError(tensors[1]!, [0, 3])).toBeLessThan(1e-6);
    });
  });

  test('decompositions: in use from install on, each side by itself', async () => {
    const algebra = await linearAlgebra();
    const sizes = { a: 2, g: 1 };
    const held = createDecompositions(eigenForm, [sizes as unknown as Layer]);
    const before = tf.memory().numTensors;
    const p = (): number[] =>
      tf.tidy(() => [
        ...held
          .precondition(new Map([[0, tf.tensor2d([[1], [1]])]]), 1)
          .get(0)!
          .dataSync(),
      ]);
    const pair = (a: number, g: number) => ({ a: tf.tensor2d([a, 0, 0, 0], [2, 2]), g: tf.tensor2d([[g]]) });
    const keys = [
      { layer: 0, side: 'a' },
      { layer: 0, side: 'g' },
    ] as const;
    const [first, second] = [pair(3, 1), pair(7, 3)];
    held.start(algebra, keys, [first], 1);
    held.install(held.join());
    // 1 / (3·1 + 1)
    expect(p()).toEqual([0.25, 1]);
    held.start(algebra, keys.slice(0, 1), [second], 1);
    expect(p()).toEqual([0.25, 1]);
    const own = held.join();
    expect(own.map(({ key }) => key)).toEqual([keys[0]]);
    held.install(own);
    // 1 / (7·1 + 1)
    expect(p()).toEqual([0.125, 1]);
    expect(held.bytes()).toBe(4 * (4 + 2 + 1 + 1));
    held.dispose();
    tf.dispose([first, second].flatMap(({ a, g }) => [a, g]));
    expect(tf.memory().numTensors).toBe(before);
  });
});

test('layers of equal sizes go together, and a layer without gradient is left out', async () => {
  const algebra = await linearAlgebra();
  const layer = { a: 1, g: 1 } as unknown as Layer;
  const held = createDecompositions(eigenForm, [layer, { a: 2, g: 1 } as unknown as Layer, layer]);
  const pair = (a: number[], g: number) => ({
    a: tf.tidy(() => tf.diag(tf.tensor1d(a)) as tf.Tensor2D),
    g: tf.tensor2d([[g]]),
  });
  const factors = [pair([1], 1), pair([1, 3], 1), pair([7], 1)];
  const keys = factors.flatMap((_, i) => (['a', 'g'] as const).map((side) => ({ layer: i, side })));
  held.start(algebra, keys, factors, 1);
  held.install(held.join());
  tf.tidy(() => {
    const ones = (rows: number): tf.Tensor2D => tf.ones([rows, 1]);
    const all = held.precondition(
      new Map([
        [0, ones(1)],
        [1, ones(2)],
        [2, ones(1)],
      ]),
      1,
    );
    expect([0, 1, 2].map((i) => [...all.get(i)!.dataSync()])).toEqual([[0.5], [0.5, 0.25], [0.125]]);
    const some = held.precondition(new Map([[2, ones(1)]]), 1);
    expect([...some.keys()]).toEqual([2]);
    expect([...some.get(2)!.dataSync()]).toEqual([0.125]);
  });
  held.dispose();
  tf.dispose(factors.flatMap(({ a, g }) => [a, g]));
});

test('the damping is split so that scales do not matter', () => {
  const [a, g] = [
    matrixOf([
      [4, 0],
      [0, 12],
    ]),
    matrixOf([[2]]),
  ];
  // π = √(8 / 2) = 2; √0.09 = 0.3
  const parts = splitDamping(a, g, 0.09);
  expect(parts.a).toBeCloseTo(0.6, 6);
  expect(parts.g).toBeCloseTo(0.15, 6);
  expect(parts.a * parts.g).toBeCloseTo(0.09, 6);
  // Of a factor of zeros, π is 1.
  expect(splitDamping(matrixOf([[0]]), g, 0.09)).toEqual({ a: 0.3, g: 0.3 });
  expect(splitDamping(g, matrixOf([[0]]), 0.09)).toEqual({ a: 0.3, g: 0.3 });
});

test('triangles', () => {
  const packed = new Float32Array(2 + triangleLength(3));
  expect(packTriangle(packed, 2, [1, 2, 3, 2, 4, 5, 3, 5, 6], 3, 0.5)).toBe(8);
  expect([...packed]).toEqual([0, 0, 0.5, 1, 1.5, 2, 2.5, 3]);
  expect([...unpackTriangle(packed, 2, 3)]).toEqual([0.5, 1, 1.5, 1, 2, 2.5, 1.5, 2.5, 3]);
});
