import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { counted, type Geometry, multiplyAdds, type Product } from '../geometry.js';
import type { CallableLayer } from '../layers/keras.js';
import { stream } from '../rng.js';
import { describeEngines, expectNoLeak, relativeError } from '../testing/engines.js';
import { conv2d } from './conv2d.js';
import { dense } from './dense.js';
import { kindOf, sitesOf } from './index.js';

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
      const exact = conv2d({ strides: [stride, stride], pad }).products;
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
    const exact = dense.products;
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
    tf.tidy(() => {
      const exact = counted(dense, done);
      exact.forward(tf.ones([3, 4]), tf.ones([4, 5]));
      exact.inputGrad(tf.ones([3, 5]), tf.ones([2, 5]), [3, 2]);
    });
    expect(done).toEqual({ forward: 60, inputGrad: 30, weightGrad: 0 });
  });

  it('have bias and relu in the same pass', () => {
    tf.tidy(() => {
      const x = tf.tensor2d([1, -2], [1, 2]);
      const w = tf.tensor2d([1, 2, 3, 4], [2, 2]);
      const bias = tf.tensor1d([4, 10]);
      const of = (geometry: Geometry, input: tf.Tensor, weight: tf.Tensor): number[][] =>
        (['linear', 'relu'] as const).map((activation) => [
          ...geometry.products.forward(input, weight, { bias, activation }).dataSync(),
        ]);
      // x·W = (−5, −6).
      expect(of(dense, x, w)).toEqual([
        [-1, 4],
        [0, 4],
      ]);
      const one = conv2d({ strides: [1, 1], pad: 'valid' });
      expect(of(one, tf.reshape(x, [1, 1, 1, 2]), tf.reshape(w, [1, 1, 2, 2]))).toEqual([
        [-1, 4],
        [0, 4],
      ]);
    });
  });
});

interface Example {
  readonly geometry: Geometry;
  readonly x: tf.Tensor;
  readonly w: tf.Tensor;
  readonly dy: tf.Tensor;
}

const tensor = (shape: readonly number[], seed: number): tf.Tensor =>
  tf.tensor(normals(tf.util.sizeFromShape([...shape]), seed), [...shape]);

/** Each geometry with operands of four examples. */
const examples: Readonly<Record<string, () => Example>> = {
  dense: () => ({ geometry: dense, x: tensor([4, 6], 1), w: tensor([6, 5], 2), dy: tensor([4, 5], 3) }),
  'conv2d same': () => ({
    geometry: conv2d({ strides: [2, 1], pad: 'same' }),
    x: tensor([4, 5, 6, 6], 1),
    w: tensor([3, 2, 6, 5], 2),
    dy: tensor([4, 3, 6, 5], 3),
  }),
  'conv2d valid': () => ({
    geometry: conv2d({ strides: [1, 2], pad: 'valid' }),
    x: tensor([4, 5, 6, 6], 1),
    w: tensor([3, 2, 6, 5], 2),
    dy: tensor([4, 3, 3, 5], 3),
  }),
};

/** Left and right operand of a product, and the product of such. */
function productOf({ geometry: { products }, x, w, dy }: Example, product: Product) {
  const byProduct = {
    forward: [x, w, (a: tf.Tensor, b: tf.Tensor) => products.forward(a, b)],
    inputGrad: [dy, w, (a: tf.Tensor, b: tf.Tensor) => products.inputGrad(a, b, x.shape)],
    weightGrad: [x, dy, (a: tf.Tensor, b: tf.Tensor) => products.weightGrad(a, b, w.shape)],
  } as const;
  return byProduct[product];
}

await describeEngines('a geometry', () => {
  const products: readonly Product[] = ['forward', 'inputGrad', 'weightGrad'];
  it.each(Object.keys(examples).flatMap((name) => products.map((product) => [name, product] as const)))(
    '%s contracts one axis in %s: the products of some of its indices and of the others add up',
    (name, product) => {
      tf.tidy(() => {
        const example = examples[name]!();
        const [left, right, multiply] = productOf(example, product);
        const axes = example.geometry.contractions[product];
        const size = left.shape[axes.left]!;
        expect(right.shape[axes.right]).toBe(size);
        const some = [0, 2, 3];
        const others = Array.from({ length: size }, (_, i) => i).filter((i) => !some.includes(i));
        const parts = [some, others].map((kept) => {
          const indices = tf.tensor1d(kept, 'int32');
          return multiply(tf.gather(left, indices, axes.left), tf.gather(right, indices, axes.right));
        });
        const whole = multiply(left, right);
        expect(relativeError(tf.addN(parts).dataSync(), whole.dataSync())).toBeLessThan(1e-5);
        // The control: one of them alone is not all of it.
        expect(relativeError(parts[0]!.dataSync(), whole.dataSync())).toBeGreaterThan(0.01);
      });
    },
  );

  it.each(Object.keys(examples))('%s gives the gradients of single examples, with the bias as a last row', (name) => {
    tf.tidy(() => {
      const { geometry, x, w, dy } = examples[name]!();
      const outputs = w.shape.at(-1)!;
      for (const bias of [false, true]) {
        const call = { x, dy, wShape: w.shape, rowsPerExample: 1, count: 3, bias };
        const gradients = geometry.exampleGradients(call);
        expect(gradients.shape).toEqual([3, w.size / outputs + (bias ? 1 : 0), outputs]);
        for (let i = 0; i < 3; i++) {
          const [one, back] = [tf.slice(x, i, 1), tf.slice(dy, i, 1)];
          const expected = [...geometry.products.weightGrad(one, back, w.shape).dataSync()];
          if (bias) expected.push(...tf.sum(tf.reshape(back, [-1, outputs]), 0).dataSync());
          expect(relativeError(tf.slice(gradients, i, 1).dataSync(), expected)).toBeLessThan(1e-5);
        }
      }
    });
  });

  it('dense adds up the rows of an example', () => {
    tf.tidy(() => {
      // Two examples of two rows.
      const x = tf.tensor2d([1, 2, 3, 4, 5, 6, 7, 8], [4, 2]);
      const dy = tf.tensor2d([1, 1, 1, 2], [4, 1]);
      const call = { x, dy, wShape: [2, 1], rowsPerExample: 2, bias: true };
      expect([...dense.exampleGradients({ ...call, count: 2 }).dataSync()]).toEqual([4, 6, 2, 19, 22, 3]);
      expect([...dense.exampleGradients({ ...call, count: 1 }).dataSync()]).toEqual([4, 6, 2]);
    });
  });

  it.each(Object.keys(examples))('%s sums r·rᵀ over the rows that its weight meets', (name) => {
    tf.tidy(() => {
      const { geometry, x, w } = examples[name]!();
      for (const ones of [false, true]) {
        const gram = geometry.gramOfInputs(x, w.shape, ones);
        const rows = w.size / w.shape.at(-1)!;
        expect(gram.shape).toEqual([rows + Number(ones), rows + Number(ones)]);
        // ⟨A, W·Wᵀ⟩ is |Y|²: Y is what the rows give with W.
        const y = geometry.products.forward(x, w).dataSync<'float32'>();
        const matrix = tf.reshape(w, [rows, -1]) as tf.Tensor2D;
        const inner = tf.slice(gram, [0, 0], [rows, rows]);
        const trace = tf.sum(tf.mul(inner, tf.matMul(matrix, matrix, false, true))).dataSync()[0]!;
        expect(trace / y.reduce((sum, v) => sum + v * v, 0)).toBeCloseTo(1, 4);
        // The corner counts the rows.
        const count = y.length / w.shape.at(-1)!;
        if (ones) expect(gram.dataSync().at(-1)).toBe(count);
      }
    });
  });

  it('takes an input in its own form and gives the result that of the input', () => {
    tf.tidy(() => {
      for (const shape of [[6], [5, 6], [2, 5, 6]]) {
        const x = tensor([4, ...shape], 1);
        const { x: rows, rowsPerExample, restore } = dense.operandOf(x);
        const each = tf.util.sizeFromShape(shape) / 6;
        expect([rows.shape, rowsPerExample]).toEqual([[4 * each, 6], shape.length === 1 ? undefined : each]);
        const y = restore(dense.products.forward(rows, tf.ones([6, 3])));
        expect(y.shape).toEqual([4, ...shape.slice(0, -1), 3]);
        const sums = tf.sum(x, -1).dataSync();
        expect(
          relativeError(tf.slice(y, [...x.shape.map(() => 0)], [...x.shape.slice(0, -1), 1]).dataSync(), sums),
        ).toBeLessThan(1e-5);
      }
      const image = tensor([2, 3, 3, 1], 1);
      const operand = conv2d({ strides: [1, 1], pad: 'same' }).operandOf(image);
      expect(operand.x).toBe(image);
      expect(operand.rowsPerExample).toBeUndefined();
      expect(operand.restore(image)).toBe(image);
    });
  });

  it.each(Object.keys(examples))('%s leaves no tensor but its results', async (name) => {
    const example = examples[name]!();
    const { geometry, x, w, dy } = example;
    await expectNoLeak(() => {
      for (const product of products) {
        const [left, right, multiply] = productOf(example, product);
        multiply(left, right).dispose();
      }
      tf.dispose([geometry.gramOfInputs(x, w.shape, true)]);
      const call = { x, dy, wShape: w.shape, rowsPerExample: 1, count: 2, bias: true };
      // Called inside a tidy only: what it makes on the way is freed there.
      tf.tidy(() => void geometry.exampleGradients(call));
    });
    tf.dispose([x, w, dy]);
  });
});

it('a layer has the sites of its geometry, or a reason', () => {
  const sitesAfter = (layer: tf.layers.Layer, shape: number[]): ReturnType<typeof sitesOf> => {
    layer.apply(tf.input({ shape }));
    return sitesOf(layer as unknown as CallableLayer);
  };
  const named = (sites: ReturnType<typeof sitesOf>): unknown =>
    typeof sites === 'string'
      ? sites
      : sites.map(({ geometry, kernel, bias }) => [geometry.name, kernel.read().shape, bias?.read().shape]);
  const { layers } = tf;
  expect(named(sitesAfter(layers.dense({ units: 4 }), [3]))).toEqual([['dense', [3, 4], [4]]]);
  expect(named(sitesAfter(layers.dense({ units: 4, useBias: false }), [3]))).toEqual([['dense', [3, 4], undefined]]);
  const filters = { filters: 2, kernelSize: 3 };
  expect(named(sitesAfter(layers.conv2d(filters), [8, 8, 1]))).toEqual([['conv2d', [3, 3, 1, 2], [2]]]);
  expect(named(sitesAfter(layers.conv2d({ ...filters, dilationRate: 2 }), [9, 9, 1]))).toContain('dilated');
  expect(named(sitesAfter(layers.conv2d({ ...filters, dataFormat: 'channelsFirst' }), [1, 8, 8]))).toContain('first');
  expect(named(sitesAfter(layers.conv1d(filters), [8, 1]))).toBe('Conv1D layers have no replaceable products');
  expect(named(sitesAfter(layers.flatten(), [8, 1]))).toBe('Flatten layers have no replaceable products');
  expect(named(sitesOf(layers.dense({ units: 1 }) as unknown as CallableLayer))).toBe('it is not built');
  expect(kindOf(layers.dense({ units: 1 }) as unknown as CallableLayer)?.className).toBe('Dense');
});
