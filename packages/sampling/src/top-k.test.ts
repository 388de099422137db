import { clockAt, exactProducts, openScope, type Product, registerKernels, useEngine } from '@frugal/core';
import { relativeError } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import type { SamplingMode } from './rule.js';
import {
  expectUnbiased,
  GEOMETRIES,
  makeOperands,
  positiveOperands,
  ruleOf,
  runRule,
  scoresOf,
} from './testing/products.js';
import { topK } from './top-k.js';

beforeAll(async () => {
  await useEngine('cpu', { log: () => undefined });
  registerKernels(tf.getBackend());
});

/** Norm of each slice along an axis, in float64 from plain arrays. */
function norms(t: tf.Tensor, axis: number): number[] {
  const inner = t.shape.slice(axis + 1).reduce((a, b) => a * b, 1);
  const n = t.shape[axis] as number;
  const squares = new Array<number>(n).fill(0);
  t.dataSync().forEach((v, i) => {
    squares[Math.floor(i / inner) % n]! += v * v;
  });
  return squares.map(Math.sqrt);
}

/** Ones at the three largest products of norms, as a mask along `axis` of rank `rank`. */
function topMask(a: number[], b: number[], rank: number, axis: number): tf.Tensor {
  const weights = a.map((v, i) => v * b[i]!);
  const third = [...weights].sort((x, y) => y - x)[2]!;
  return tf.tensor(
    weights.map((v) => (v >= third ? 1 : 0)),
    Array.from({ length: rank }, (_, i) => (i === axis ? weights.length : 1)),
  );
}

describe('topK', () => {
  describe.each(GEOMETRIES)('at %s', (_title, geometry) => {
    const conv = geometry.kind === 'conv2d';
    // Y contracts the inputs, dX the outputs, dW the batch: in NHWC and HWIO, and in [N, K] and [K, M].
    const axes = {
      forward: conv ? [3, 2] : [1, 0],
      inputGrad: conv ? [3, 3] : [1, 1],
      weightGrad: [0, 0],
    } as const satisfies Record<Product, readonly [number, number]>;

    it.each([
      ['forward', 'blackBox'],
      ['inputGrad', 'backward'],
      ['weightGrad', 'backward'],
    ] as const)(
      'keeps the three largest of six |A_i|·|B_i| of the product %s, unscaled',
      (product: Product, mode: SamplingMode) => {
        const operands = makeOperands(geometry);
        const { x, w, dy } = operands;
        const exact = exactProducts(geometry);
        const [left, right] = { forward: [x, w], inputGrad: [dy, w], weightGrad: [x, dy] }[product] as [
          tf.Tensor,
          tf.Tensor,
        ];
        const [a, b] = axes[product];
        const masked = tf.mul(left, topMask(norms(left, a), norms(right, b), left.rank, a));
        const expected = {
          forward: () => exact.forward(masked, w),
          inputGrad: () => exact.inputGrad(masked, w, x.shape),
          weightGrad: () => exact.weightGrad(masked, dy, w.shape),
        }
          [product]()
          .dataSync();
        const values = runRule(ruleOf(topK({ keep: 0.5, minK: 1, mode })), operands, openScope(clockAt(0), 0));
        // Sums of up to some hundred float32 products, in another order.
        expect(relativeError(values[product], expected)).toBeLessThan(1e-5);
      },
    );
  });

  it('gives ties to the lower index: equal columns and rows', () => {
    const ones = tf.ones([4, 4]);
    const operands = { geometry: { kind: 'dense' }, x: ones, w: tf.variable(ones), dy: ones } as const;
    const { weightGrad } = runRule(ruleOf(topK({ keep: 0.5, minK: 1 })), operands, openScope(clockAt(0), 0));
    expect([...weightGrad]).toEqual([4, 4, 4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
  });

  it('is biased, and fails the check that the unbiased methods pass', () => {
    const operands = makeOperands({ kind: 'dense' });
    const scores = (['through', 'backward', 'blackBox'] as const).flatMap((mode) =>
      scoresOf(topK, mode, operands, 5, 1),
    );
    expect(() => expectUnbiased(scores.concat(scores, scores, scores))).toThrow(/z-scores/);
  });

  it('loses the mean of positive inputs of a dense layer without normalisation: its documented failure', () => {
    const { relativeBias } = positiveOperands();
    expect(relativeBias(topK, 2)).toBeGreaterThan(0.25);
  });
});
