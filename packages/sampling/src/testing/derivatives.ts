import { clockAt, type Conv2dOptions, type Geometry, type Method, openScope } from '@frugal/core';
import { relativeError } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'vitest';
import type { SamplingOptions } from '../rule.js';
import { makeOperands, ruleOf, runRule, selectionIn } from './products.js';

/** Y of the sample in float64 by its definition: every product of an input, a weight and the input's scale. */
function sampledY(
  convolution: Conv2dOptions | undefined,
  x: Float64Array,
  w: Float64Array,
  shapes: number[][],
  scale: Float64Array,
) {
  const [xs, ws, ys] = shapes as [number[], number[], number[]];
  const y = new Float64Array(ys.reduce((a, b) => a * b, 1));
  if (!convolution) {
    const [K, M] = ws as [number, number];
    y.forEach((_, i) => {
      for (let k = 0; k < K; k++) y[i]! += x[Math.floor(i / M) * K + k]! * scale[k]! * w[k * M + (i % M)]!;
    });
    return y;
  }
  const [, H, W, C] = xs as [number, number, number, number];
  const [kh, kw, , O] = ws as [number, number, number, number];
  const [, oh, ow] = ys as [number, number, number, number];
  const [s] = convolution.strides;
  const before = (inner: number, outer: number, k: number) =>
    convolution.pad === 'valid' ? 0 : Math.floor(Math.max(0, (outer - 1) * s + k - inner) / 2);
  const [top, left] = [before(H, oh, kh), before(W, ow, kw)];
  y.forEach((_, flat) => {
    const o = flat % O;
    const q = Math.floor(flat / O) % ow;
    const p = Math.floor(flat / O / ow) % oh;
    const b = Math.floor(flat / O / ow / oh);
    for (let i = 0; i < kh; i++)
      for (let j = 0; j < kw; j++) {
        const [r, t] = [p * s + i - top, q * s + j - left];
        if (r < 0 || r >= H || t < 0 || t >= W) continue;
        for (let c = 0; c < C; c++)
          y[flat]! += x[((b * H + r) * W + t) * C + c]! * scale[c]! * w[((i * kw + j) * C + c) * O + o]!;
      }
  });
  return y;
}

/**
 * Throws unless dX and dW of a method in mode `through` are the derivatives of its own sampled Y, by finite differences while
 * the sample is held.
 */
export function expectOwnDerivatives(
  make: (options: SamplingOptions) => Method,
  geometry: Geometry,
  convolution: Conv2dOptions | undefined,
): void {
  const operands = makeOperands(geometry);
  const { x, w, dy } = operands;
  const result = runRule(ruleOf(make({ keep: 0.5, minK: 1 })), operands, openScope(clockAt(0), 4));
  const { indices, scales } = selectionIn(result.plan);
  const scale = new Float64Array(6);
  indices.forEach((index, j) => {
    scale[index]! += scales?.[j] ?? 1;
  });
  expect(scale.filter((v) => v === 0).length, 'some inputs are left out').toBeGreaterThan(0);
  const values = [x, w, dy].map((t) => Float64Array.from(t.dataSync())) as [Float64Array, Float64Array, Float64Array];
  const [xv, wv, r] = values;
  const y = () => sampledY(convolution, xv, wv, [x.shape, w.shape, dy.shape], scale);
  const loss = () => y().reduce((total, v, i) => total + v * r[i]!, 0);
  // The loss is linear in x and in w, so central differences are exact but for rounding.
  const slopes = (v: Float64Array) =>
    Float64Array.from(v, (value, i) => {
      v[i] = value + 0.5;
      const up = loss();
      v[i] = value - 0.5;
      const down = loss();
      v[i] = value;
      return up - down;
    });
  // Sums of up to some hundred float32 products.
  expect(relativeError(result.forward, y())).toBeLessThan(1e-5);
  expect(relativeError(result.inputGrad, slopes(xv))).toBeLessThan(1e-5);
  expect(relativeError(result.weightGrad, slopes(wv))).toBeLessThan(1e-5);
  tf.dispose([x, w, dy]);
}
