import { clockAt, dense, openScope, type Product, registerKernels, sampledSlices, useEngine } from '@frugal/core';
import { relativeError } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import type { SamplingMode } from './rule.js';
import {
  expectUnbiased,
  GEOMETRIES,
  makeCall,
  makeOperands,
  makeSite,
  positiveOperands,
  ruleOf,
  runRule,
  scoresOf,
  selectionIn,
} from './testing/products.js';
import { topK, type TopKOptions } from './top-k.js';

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
    const conv = geometry.slides;
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
        const exact = geometry.products;
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
    const operands = { geometry: dense, x: ones, w: tf.variable(ones), dy: ones };
    const { weightGrad } = runRule(ruleOf(topK({ keep: 0.5, minK: 1 })), operands, openScope(clockAt(0), 0));
    expect([...weightGrad]).toEqual([4, 4, 4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
  });

  describe.each(GEOMETRIES)("by 'weights' at %s", (_title, geometry) => {
    const axis = geometry.slides ? 2 : 0;
    const method = topK({ keep: 0.5, minK: 1, by: 'weights' });

    it('keeps the three inputs whose weights are largest, whatever the inputs are', () => {
      const operands = makeOperands(geometry);
      const size = norms(operands.w, axis);
      const expected = [0, 1, 2, 3, 4, 5]
        .sort((i, j) => size[j]! - size[i]!)
        .slice(0, 3)
        .sort();
      // Inputs that would turn the order of the pairs round.
      const factors = tf.tensor1d(size.map((v) => 1 / v ** 2));
      const plans = [operands.x, tf.mul(operands.x, factors)].map((x) => {
        const { plan } = runRule(ruleOf(method), { ...operands, x }, openScope(clockAt(0), 0));
        return sampledSlices(plan);
      });
      for (const plan of plans) expect(plan).toEqual({ axis, indices: Int32Array.from(expected) });
      // The control: by pairs it does turn.
      const pairs = ruleOf(topK({ keep: 0.5, minK: 1 }));
      const turned = runRule(pairs, { ...operands, x: tf.mul(operands.x, factors) }, openScope(clockAt(0), 0));
      expect(selectionIn(turned.plan).indices).not.toEqual(expected);
    });

    it('dW is zero outside of what the plan says, and not inside', () => {
      const { w, ...rest } = makeOperands(geometry);
      const { weightGrad, plan } = runRule(ruleOf(method), { w, ...rest }, openScope(clockAt(0), 0));
      const filled = norms(tf.tensor(weightGrad, w.shape), axis).flatMap((norm, i) => (norm > 0 ? [i] : []));
      expect(sampledSlices(plan)?.indices).toEqual(Int32Array.from(filled));
    });
  });

  it('only a plan whose dW is sparse says so', () => {
    const operands = makeOperands(dense);
    const slices = (options: TopKOptions): unknown =>
      sampledSlices(runRule(ruleOf(topK(options)), operands, openScope(clockAt(0), 0)).plan);
    expect(slices({ keep: 0.5, minK: 1 })).toBeDefined();
    expect(slices({ keep: 0.5, minK: 1, mode: 'blackBox' })).toBeUndefined();
    expect(slices({ keep: 0.5, minK: 1, mode: 'backward' })).toBeUndefined();
    expect(slices({ keep: 1, minK: 1 })).toBeUndefined();
  });

  it('says the channels of each call; of one that runs exact, none', () => {
    const operands = makeOperands(dense);
    const rule = ruleOf(topK({ keep: 0.2, minK: 1 }));
    const site = makeSite(operands);
    const scope = openScope(clockAt(0), 0);
    const channelsOf = (x: tf.Tensor, use: number) =>
      sampledSlices(rule.plan?.(makeCall(site, scope, use), x, operands.w))?.indices;
    const bigAt = (channel: number): tf.Tensor => tf.oneHot(tf.tensor1d([channel, channel], 'int32'), 6).toFloat();
    expect([1, 4].map((channel, use) => channelsOf(bigAt(channel), use))).toEqual([Int32Array.of(1), Int32Array.of(4)]);
    // Inputs of zeros leave nothing to choose by.
    expect(channelsOf(tf.zeros([2, 6]), 2)).toBeUndefined();
  });

  it('refuses to choose by weights where there are none', () => {
    expect(() => topK({ keep: 0.5, by: 'weights', mode: 'backward' })).toThrow(/with by 'weights' but received/);
    expect(() => topK({ keep: 0.5, by: 'inputs' as 'pairs' })).toThrow(/by to be one of 'pairs', 'weights'/);
  });

  it('is biased, and fails the check that the unbiased methods pass', () => {
    const operands = makeOperands(dense);
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
