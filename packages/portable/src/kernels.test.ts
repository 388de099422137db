import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { registerPortable } from './index.js';
import { against, normal, runKernel } from './testing.js';

/** float32 sums of some hundred products differ by their order: 1e-6 typical, 1e-5 the worst that is no mistake. */
const CLOSE = 1e-5;

beforeAll(async () => {
  await registerPortable();
});

const runs = { numRuns: 60, seed: 7 };
const size = fc.integer({ min: 1, max: 9 });
const seed = fc.integer({ min: 1, max: 1e6 });

describe('matrix products', () => {
  const outer = fc.constantFrom<[number[], number[]]>(
    [[], []],
    [[1], [1]],
    [[3], [3]],
    [
      [2, 3],
      [2, 3],
    ],
  );
  const inner = fc.constantFrom(1, 5, 47, 48, 49, 100, 200);

  it('BatchMatMul equals cpu for every transposition, batch and inner size', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({ outer, m: fc.integer({ min: 1, max: 40 }), n: fc.integer({ min: 1, max: 40 }), k: inner, seed }),
        fc.boolean(),
        fc.boolean(),
        async ({ outer: [oa, ob], m, n, k, seed: s }, ta, tb) => {
          const product = () =>
            tf.matMul(
              normal([...oa, ...(ta ? [k, m] : [m, k])], s),
              normal([...ob, ...(tb ? [n, k] : [k, n])], s + 1),
              ta,
              tb,
            );
          expect(await against(product)).toBeLessThan(CLOSE);
        },
      ),
      runs,
    );
  });

  it('broadcasts batches, [2, 1] by [1, 3] too', async () => {
    for (const [oa, ob] of [
      [
        [2, 1],
        [1, 3],
      ],
      [[1], [4]],
      [[5], [1]],
      [
        [2, 3],
        [1, 3],
      ],
      [[3], [2, 3]],
    ] as [number[], number[]][]) {
      const a = () => normal([...oa, 4, 60], 1);
      const b = () => normal([...ob, 60, 5], 2);
      const outer = tf.broadcast_util.assertAndGetBroadcastShape(oa, ob);
      const spelled = () => tf.matMul(tf.broadcastTo(a(), [...outer, 4, 60]), tf.broadcastTo(b(), [...outer, 60, 5]));
      expect(await against(() => tf.matMul(a(), b()), spelled)).toBeLessThan(CLOSE);
    }
  });

  it('multiplies integers on the bridge', async () => {
    const a = () => tf.tensor2d([1, 2, 3, 4], [2, 2], 'int32');
    expect(await against(() => tf.matMul(a(), a()))).toBe(0);
  });

  const activation = fc.constantFrom('linear', 'relu', 'relu6', 'elu', 'sigmoid', 'leakyrelu', 'prelu' as const);

  it('_FusedMatMul equals product, bias and activation on cpu', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({ b: fc.constantFrom(1, 3), m: size, n: size, k: inner, seed, bias: fc.boolean(), activation }),
        fc.boolean(),
        fc.boolean(),
        async (o, ta, tb) => {
          const inputs = () => ({
            a: normal([o.b, ...(ta ? [o.k, o.m] : [o.m, o.k])], o.seed),
            b: normal([o.b, ...(tb ? [o.n, o.k] : [o.k, o.n])], o.seed + 1),
            ...(o.bias ? { bias: normal([o.n], o.seed + 2) } : {}),
            ...(o.activation === 'prelu' ? { preluActivationWeights: normal([o.n], o.seed + 3) } : {}),
          });
          const attrs = { transposeA: ta, transposeB: tb, activation: o.activation, leakyreluAlpha: 0.3 };
          expect(await against(() => runKernel('_FusedMatMul', inputs(), attrs))).toBeLessThan(CLOSE);
        },
      ),
      runs,
    );
  });

  it('adds the bias once for an inner size of 100, where stock wasm adds it three times', async () => {
    const fused = () =>
      tf.fused.matMul({
        a: tf.ones([2, 100]),
        b: tf.fill([2, 100], 0.01),
        transposeB: true,
        bias: tf.tensor1d([0.3, 0.3]),
      });
    expect(await against(fused)).toBeLessThan(CLOSE);
    await tf.setBackend('wasm');
    expect(fused().dataSync()[0]).toBeCloseTo(1.9, 3);
  });
});

type Pad = 'same' | 'valid' | number | [[number, number], [number, number], [number, number], [number, number]];

/** Any geometry whose output has at least one pixel, odd and even sizes, and padding larger than the filter too. */
const convolution = fc
  .record({
    n: fc.integer({ min: 1, max: 3 }),
    h: size,
    w: size,
    c: fc.constantFrom(1, 2, 3, 5, 33),
    o: fc.constantFrom(1, 2, 4, 7),
    kh: fc.integer({ min: 1, max: 5 }),
    kw: fc.integer({ min: 1, max: 5 }),
    sh: fc.integer({ min: 1, max: 3 }),
    sw: fc.integer({ min: 1, max: 3 }),
    pad: fc.oneof(
      fc.constantFrom<Pad>('same', 'valid', 1, 6),
      fc.tuple(size, size, size, size).map(
        ([t, b, l, r]): Pad => [
          [0, 0],
          [t - 1, b - 1],
          [l - 1, r - 1],
          [0, 0],
        ],
      ),
    ),
    seed,
  })
  // For a single number tfjs-core sizes the width by the filter's height and stride (conv_util.ts 4.22): squares only.
  .map((g) => (typeof g.pad === 'number' ? { ...g, kw: g.kh, sw: g.sh } : g))
  .filter((g) => {
    const [h, w] = Array.isArray(g.pad)
      ? [g.h + g.pad[1][0] + g.pad[1][1], g.w + g.pad[2][0] + g.pad[2][1]]
      : [g.h + (typeof g.pad === 'number' ? 2 * g.pad : 0), g.w + (typeof g.pad === 'number' ? 2 * g.pad : 0)];
    return g.pad === 'same' || (h >= g.kh && w >= g.kw);
  });

describe('convolution', () => {
  it('Conv2D and both its gradients equal cpu for every stride and padding', async () => {
    await fc.assert(
      fc.asyncProperty(convolution, async ({ n, h, w, c, o, kh, kw, sh, sw, pad, seed: s }) => {
        const dimRoundingMode = typeof pad === 'string' ? undefined : 'floor';
        const attrs = { strides: [sh, sw], pad, dilations: [1, 1], dataFormat: 'NHWC', dimRoundingMode };
        const [inputShape, filterShape] = [
          [n, h, w, c],
          [kh, kw, c, o],
        ];
        const x = () => normal(inputShape, s);
        const filter = () => normal(filterShape, s + 1);
        const forward = () => runKernel('Conv2D', { x: x(), filter: filter() }, attrs) as tf.Tensor;
        const dy = () => normal(forward().shape, s + 2);
        expect(await against(forward), 'forward').toBeLessThan(CLOSE);
        const dx = () => runKernel('Conv2DBackpropInput', { dy: dy(), filter: filter() }, { ...attrs, inputShape });
        expect(await against(dx), 'dx').toBeLessThan(CLOSE);
        const dw = () => runKernel('Conv2DBackpropFilter', { x: x(), dy: dy() }, { ...attrs, filterShape });
        expect(await against(dw), 'dw').toBeLessThan(CLOSE);
      }),
      { numRuns: 150, seed: 11 },
    );
  });

  it('the fused and the depthwise forward equal cpu for every geometry of a named padding', async () => {
    await fc.assert(
      fc.asyncProperty(
        convolution,
        fc.constantFrom('linear', 'relu', 'elu'),
        async ({ n, h, w, c, o, kh, kw, sh, sw, pad, seed: s }, activation) => {
          fc.pre(typeof pad === 'string');
          const attrs = { strides: [sh, sw], pad, dilations: [1, 1], dataFormat: 'NHWC', activation };
          const fused = () =>
            runKernel(
              'FusedConv2D',
              { x: normal([n, h, w, c], s), filter: normal([kh, kw, c, o], s + 1), bias: normal([o], s + 2) },
              attrs,
            );
          expect(await against(fused), 'FusedConv2D').toBeLessThan(CLOSE);
          const inputs = () => ({ x: normal([n, h, w, c], s), filter: normal([kh, kw, c, 2], s + 1) });
          expect(await against(() => runKernel('DepthwiseConv2dNative', inputs(), attrs)), 'depthwise').toBeLessThan(
            CLOSE,
          );
          const biased = () => ({ ...inputs(), bias: normal([2 * c], s + 2) });
          expect(
            await against(() => runKernel('FusedDepthwiseConv2D', biased(), attrs)),
            'fused depthwise',
          ).toBeLessThan(CLOSE);
        },
      ),
      runs,
    );
  });

  it('a dilated convolution with padding of its own equals cpu', async () => {
    const y = () =>
      tf.conv2d(
        normal([2, 9, 8, 3], 1) as tf.Tensor4D,
        normal([3, 2, 3, 4], 2) as tf.Tensor4D,
        1,
        'same',
        'NHWC',
        [2, 3],
      );
    expect(await against(y)).toBeLessThan(CLOSE);
  });

  it('the gradient of a batch large enough for XNNPACK equals cpu', async () => {
    for (const stride of [1, 2]) {
      const f = (x: tf.Tensor, w: tf.Tensor) =>
        tf
          .conv2d(x as tf.Tensor4D, w as tf.Tensor4D, stride, 'same')
          .square()
          .sum();
      const gradients = () => tf.grads(f)([normal([4, 9, 8, 6], 1), normal([3, 3, 6, 10], 2)]);
      expect(await against(gradients)).toBeLessThan(CLOSE);
    }
  });
});

describe('pooling gradients', () => {
  it('equal cpu, ties and padded edges included', async () => {
    const pool = fc.record({
      h: size,
      w: size,
      c: fc.integer({ min: 1, max: 5 }),
      f: fc.integer({ min: 1, max: 3 }),
      s: fc.integer({ min: 1, max: 3 }),
      seed,
    });
    await fc.assert(
      fc.asyncProperty(
        pool,
        fc.constantFrom('same' as const, 'valid' as const),
        async ({ h, w, c, f, s, seed: r }, pad) => {
          fc.pre(pad === 'same' || (h >= f && w >= f));
          // Rounding makes ties.
          const x = () => normal([2, h, w, c], r).mul(2).round() as tf.Tensor4D;
          const attrs = { filterSize: [f, f], strides: [s, s], pad };
          const y = () => tf.maxPool(x(), f, s, pad);
          const mean = () => tf.avgPool(x(), f, s, pad);
          expect(await against(y), 'MaxPool').toBeLessThan(CLOSE);
          expect(await against(mean), 'AvgPool').toBeLessThan(CLOSE);
          const dy = () => normal(y().shape, r + 1);
          const max = () => runKernel('MaxPoolGrad', { dy: dy(), input: x(), output: y() }, attrs);
          expect(await against(max), 'MaxPoolGrad').toBeLessThan(CLOSE);
          expect(
            await against(() => runKernel('AvgPoolGrad', { dy: dy(), input: x() }, attrs)),
            'AvgPoolGrad',
          ).toBeLessThan(CLOSE);
        },
      ),
      runs,
    );
  });
});

const shape = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 5 });

describe('copies', () => {
  it('Slice equals cpu for any box', async () => {
    await fc.assert(
      fc.asyncProperty(shape, fc.infiniteStream(fc.nat(1000)), seed, async (dims, random, s) => {
        const draw = (n: number) => (random.next().value as number) % n;
        const begin = dims.map((d) => draw(d));
        const whole = dims.map((d, i) => 1 + draw(d - begin[i]!));
        expect(await against(() => tf.slice(normal(dims, s), begin, whole))).toBe(0);
        expect(await against(() => tf.slice(normal(dims, s), begin[0]!))).toBe(0);
      }),
      runs,
    );
  });

  it('refuses a box outside', async () => {
    await tf.setBackend('portable');
    expect(() => runKernel('Slice', { x: tf.zeros([2, 2]) }, { begin: [1, 0], size: [2, 2] })).toThrow(
      /expected a box inside/,
    );
  });

  it('Transpose equals cpu for any permutation', async () => {
    await fc.assert(
      fc.asyncProperty(
        shape.chain((d) =>
          fc.tuple(
            fc.constant(d),
            fc.shuffledSubarray(
              d.map((_, i) => i),
              { minLength: d.length },
            ),
          ),
        ),
        seed,
        async ([dims, perm], s) => {
          expect(await against(() => tf.transpose(normal(dims, s), perm))).toBe(0);
        },
      ),
      { numRuns: 150, seed: 3 },
    );
    expect(await against(() => tf.transpose(normal([3, 50, 37], 1), [0, 2, 1]))).toBe(0);
  });

  it('Unpack and SplitV equal cpu', async () => {
    for (const axis of [0, 1, -1]) {
      expect(await against(() => tf.unstack(normal([4, 6, 3], 1), axis))).toBe(0);
      expect(await against(() => tf.split(normal([3, 6, 9], 1), 3, axis))).toBe(0);
    }
    expect(await against(() => tf.split(normal([2, 7], 1), [3, -1, 2], 1))).toBe(0);
    expect(await against(() => tf.unstack(tf.tensor1d([1, 2, 3], 'int32')))).toBe(0);
  });
});

describe('reductions, gathers and segments', () => {
  it('Sum and Mean equal cpu over any axes', async () => {
    await fc.assert(
      fc.asyncProperty(
        shape.chain((d) => fc.tuple(fc.constant(d), fc.subarray(d.map((_, i) => i)))),
        fc.boolean(),
        seed,
        async ([dims, axes], keep, s) => {
          // Sums of up to 7776 values may cancel: the scale is that of the terms, hence the shift by 3.
          const x = () => normal(dims, s).add(3);
          expect(await against(() => tf.sum(x(), axes, keep))).toBeLessThan(CLOSE);
          expect(await against(() => tf.mean(x(), axes, keep))).toBeLessThan(CLOSE);
        },
      ),
      runs,
    );
  });

  it('GatherV2 and UnsortedSegmentSum equal cpu', async () => {
    const ids = fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(ids, fc.constantFrom([], [3], [2, 5]), seed, async (list, rest, s) => {
        const index = () => tf.tensor1d(list, 'int32');
        expect(await against(() => tf.gather(normal([7, ...rest], s), index()))).toBe(0);
        const sums = () => tf.unsortedSegmentSum(normal([list.length, ...rest], s), index(), 5);
        expect(await against(sums)).toBeLessThan(CLOSE);
      }),
      runs,
    );
    await tf.setBackend('portable');
    expect(() => tf.gather(tf.zeros([3, 2]), tf.tensor1d([3], 'int32'))).toThrow(/index in \[0, 2\]/);
  });
});
