import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { counted, exactProducts, multiplyAdds } from './products.js';
import { stream } from './rng.js';
import type { Geometry } from './site.js';
import { describeEngines, relativeError } from './testing/engines.js';

type Shape = readonly [number, number, number, number];

/** Y of a convolution in float64, plain loops. */
function conv(
  x: ArrayLike<number>,
  xs: Shape,
  w: ArrayLike<number>,
  ws: Shape,
  stride: number,
  pad: 'same' | 'valid',
): { y: Float64Array; ys: Shape } {
  const [n, h, wd, c] = xs;
  const [kh, kw, , o] = ws;
  const out = (size: number, k: number): number =>
    pad === 'same' ? Math.ceil(size / stride) : Math.floor((size - k) / stride) + 1;
  const [oh, ow] = [out(h, kh), out(wd, kw)];
  const before = (size: number, k: number, os: number): number =>
    pad === 'same' ? Math.floor(Math.max(0, (os - 1) * stride + k - size) / 2) : 0;
  const [top, left] = [before(h, kh, oh), before(wd, kw, ow)];
  const y = new Float64Array(n * oh * ow * o);
  for (let b = 0; b < n; b++)
    for (let i = 0; i < oh; i++)
      for (let j = 0; j < ow; j++)
        for (let u = 0; u < kh; u++)
          for (let v = 0; v < kw; v++) {
            const [r, s] = [i * stride + u - top, j * stride + v - left];
            if (r < 0 || r >= h || s < 0 || s >= wd) continue;
            for (let k = 0; k < c; k++)
              for (let m = 0; m < o; m++)
                y[((b * oh + i) * ow + j) * o + m]! +=
                  (x[((b * h + r) * wd + s) * c + k] as number) * (w[((u * kw + v) * c + k) * o + m] as number);
          }
  return { y, ys: [n, oh, ow, o] };
}

/** The products are linear, so a central difference of any width is exact: the gradient of Σ dy·y in float64. */
function numeric(f: (v: Float64Array) => Float64Array, at: ArrayLike<number>, dy: ArrayLike<number>): Float64Array {
  const x = Float64Array.from(at);
  const dot = (y: Float64Array): number => y.reduce((sum, value, i) => sum + value * (dy[i] as number), 0);
  return x.map((value, i) => {
    x[i] = value + 0.5;
    const up = dot(f(x));
    x[i] = value - 0.5;
    const down = dot(f(x));
    x[i] = value;
    return up - down;
  });
}

const normals = (n: number, seed: number): Float32Array =>
  Float32Array.from({ length: n }, stream(seed, 'products').normal);

await describeEngines('exact products', () => {
  it.each([
    [1, 'same', 3],
    [1, 'valid', 3],
    [2, 'same', 3],
    [2, 'valid', 2],
    [3, 'same', 2],
    [2, 'same', 5],
    [1, 'same', 1],
    [2, 'same', 1],
  ] as const)(
    'convolution of stride %i, %s, filter %i: Y, dX and dW equal float64 loops and differences',
    (stride, pad, k) => {
      const xs: Shape = [2, 6, 5, 3];
      const ws: Shape = [k, k, 3, 4];
      const x = normals(180, 1);
      const w = normals(k * k * 12, 2);
      const { y, ys } = conv(x, xs, w, ws, stride, pad);
      const dy = normals(y.length, 3);
      const exact = exactProducts({ kind: 'conv2d', strides: [stride, stride], pad });
      tf.tidy(() => {
        const [tx, tw, td] = [tf.tensor(x, [...xs]), tf.tensor(w, [...ws]), tf.tensor(dy, [...ys])];
        // float32 sums of at most 300 terms.
        expect(relativeError(exact.forward(tx, tw).dataSync(), y)).toBeLessThan(1e-5);
        expect(
          relativeError(
            exact.inputGrad(td, tw, xs).dataSync(),
            numeric((v) => conv(v, xs, w, ws, stride, pad).y, x, dy),
          ),
        ).toBeLessThan(1e-5);
        expect(
          relativeError(
            exact.weightGrad(tx, td, ws).dataSync(),
            numeric((v) => conv(x, xs, v, ws, stride, pad).y, w, dy),
          ),
        ).toBeLessThan(1e-5);
      });
    },
  );

  it('dense: Y, dX and dW by hand', () => {
    const exact = exactProducts({ kind: 'dense' });
    tf.tidy(() => {
      const x = tf.tensor2d([1, 2, 3, 4], [2, 2]);
      const w = tf.tensor2d([5, 6, 7, 8], [2, 2]);
      const dy = tf.tensor2d([1, 0, 0, 1], [2, 2]);
      expect([...exact.forward(x, w).dataSync()]).toEqual([19, 22, 43, 50]);
      expect([...exact.inputGrad(dy, w, [2, 2]).dataSync()]).toEqual([5, 7, 6, 8]);
      expect([...exact.weightGrad(x, dy, [2, 2]).dataSync()]).toEqual([1, 3, 2, 4]);
    });
  });

  it('count their multiply-adds: N·K·M, and N·outH·outW·kH·kW·C·O', () => {
    expect(multiplyAdds([3, 5], [4, 5])).toBe(60);
    expect(multiplyAdds([2, 7, 7, 4], [3, 3, 6, 4])).toBe(2 * 49 * 9 * 6 * 4);
    const done = { forward: 0, inputGrad: 0, weightGrad: 0 };
    const geometry: Geometry = { kind: 'dense' };
    tf.tidy(() => {
      const exact = counted(exactProducts(geometry), done);
      exact.forward(tf.ones([3, 4]), tf.ones([4, 5]));
      exact.inputGrad(tf.ones([3, 5]), tf.ones([2, 5]), [3, 2]);
    });
    expect(done).toEqual({ forward: 60, inputGrad: 30, weightGrad: 0 });
  });
});
