import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { FrugalError } from '../errors.js';
import { stream } from '../rng.js';
import { describeEngines, expectNoLeak, relativeError } from '../testing/index.js';
import { gram, type GramOptions, type Window } from './gram.js';

type Shape = readonly [batch: number, height: number, width: number, channels: number];
type Pair = readonly [number, number];

const windowOf = (size: Pair, strides: Pair, pad: 'same' | 'valid'): Window => ({
  size,
  strides,
  pad,
});

/** Outputs along an axis, and padding before it, as TensorFlow defines them. */
function axisOf(size: number, window: number, stride: number, pad: 'same' | 'valid'): Pair {
  if (pad === 'valid') return [Math.floor((size - window) / stride) + 1, 0];
  const out = Math.ceil(size / stride);
  return [out, Math.floor(Math.max(0, (out - 1) * stride + window - size) / 2)];
}

/** The patches of x, element by element. */
function patchesOf(
  x: Float32Array,
  [batch, height, width, channels]: Shape,
  { size, strides, pad }: Window,
): number[][] {
  const [rows, top] = axisOf(height, size[0], strides[0], pad);
  const [columns, left] = axisOf(width, size[1], strides[1], pad);
  const pixel = (image: number, i: number, j: number): number[] => {
    const at = ((image * height + i) * width + j) * channels;
    const outside = i < 0 || i >= height || j < 0 || j >= width;
    return outside ? new Array<number>(channels).fill(0) : [...x.subarray(at, at + channels)];
  };
  const result: number[][] = [];
  for (let t = 0; t < batch * rows * columns; t++) {
    const i = (Math.floor(t / columns) % rows) * strides[0] - top;
    const j = (t % columns) * strides[1] - left;
    const places = Array.from({ length: size[0] * size[1] }, (_, k) => [Math.floor(k / size[1]), k % size[1]] as const);
    result.push(places.flatMap(([u, v]) => pixel(Math.floor(t / (rows * columns)), i + u, j + v)));
  }
  return result;
}

/** Σ r·rᵀ in double precision. */
function bruteForce(rows: readonly number[][], ones: boolean): Float64Array {
  const all = ones ? rows.map((r) => [...r, 1]) : rows;
  const n = all[0]!.length;
  const y = new Float64Array(n * n);
  for (const r of all) for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) y[i * n + j]! += r[i]! * r[j]!;
  return y;
}

function rowsOf(x: Float32Array, columns: number): number[][] {
  return Array.from({ length: x.length / columns }, (_, k) => [...x.subarray(k * columns, (k + 1) * columns)]);
}

const random = (shape: readonly number[]): Float32Array => {
  const numbers = stream(11, 'gram', ...shape);
  return Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => numbers.normal() + 0.25);
};

/** The values of gram, which must be square and symmetric to the bit. */
function gramOf(x: Float32Array, shape: readonly number[], options: GramOptions): Float32Array {
  return tf.tidy(() => {
    const y = gram(tf.tensor(x, shape as number[]), options);
    const [n] = y.shape;
    const values = y.dataSync() as Float32Array;
    expect(y.shape).toEqual([n, n]);
    expect(values.every((v, at) => Object.is(v, values[(at % n) * n + Math.floor(at / n)]))).toBe(true);
    return values.slice();
  });
}

const small = fc.integer({ min: 1, max: 3 });
const side = fc.integer({ min: 5, max: 9 });
const edge = fc.integer({ min: 1, max: 5 });

const convolutions = fc.record({
  shape: fc.tuple(small, side, side, fc.constantFrom(1, 2, 3, 8, 9, 16, 20)),
  size: fc.tuple(edge, edge),
  // Most are of stride 1, which engines may treat apart.
  strides: fc.oneof(
    { weight: 2, arbitrary: fc.constant([1, 1] as const) },
    { weight: 1, arbitrary: fc.tuple(small, small) },
  ),
  pad: fc.constantFrom('same' as const, 'valid' as const),
  ones: fc.boolean(),
});

const dense = fc.record({
  shape: fc.oneof(
    fc.tuple(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 70 })),
    fc.tuple(small, fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 40 })),
  ),
  ones: fc.boolean(),
});

const WHOLE = Float32Array.of(1, 2, 3, 4);

await describeEngines('gram', (engine) => {
  const runs = { seed: 7, numRuns: engine === 'native' ? 150 : 15 };

  it('is worked out by hand', () => {
    // Rows (1, 2) and (3, 4).
    expect([...gramOf(WHOLE, [2, 2], {})]).toEqual([10, 14, 14, 20]);
    expect([...gramOf(WHOLE, [2, 2], { ones: true })]).toEqual([10, 14, 4, 14, 20, 6, 4, 6, 2]);
    // Windows of width 2 over 1 2 3 4: patches (1, 2), (2, 3), (3, 4), and (4, 0) with padding.
    const valid = windowOf([1, 2], [1, 1], 'valid');
    const same = windowOf([1, 2], [1, 1], 'same');
    expect([...gramOf(WHOLE, [1, 1, 4, 1], { window: valid })]).toEqual([14, 20, 20, 29]);
    expect([...gramOf(WHOLE, [1, 1, 4, 1], { window: same })]).toEqual([30, 20, 20, 29]);
    expect([...gramOf(WHOLE, [1, 1, 4, 1], { window: same, ones: true })]).toEqual([30, 20, 10, 20, 29, 9, 10, 9, 4]);
  });

  it('is the sum over patches, for any window', () => {
    const property = fc.property(convolutions, ({ shape, size, strides, pad, ones }) => {
      const x = random(shape);
      const window = windowOf(size, strides, pad);
      const expected = bruteForce(patchesOf(x, shape, window), ones);
      expect(relativeError(gramOf(x, shape, { window, ones }), expected)).toBeLessThan(1e-5);
    });
    fc.assert(property, runs);
  });

  it('is the sum over rows, of any rank', () => {
    const check = ({ shape, ones }: { shape: readonly number[]; ones: boolean }): void => {
      const x = random(shape);
      const expected = bruteForce(rowsOf(x, shape.at(-1)!), ones);
      expect(relativeError(gramOf(x, shape, { ones }), expected)).toBeLessThan(1e-5);
    };
    fc.assert(fc.property(dense, check), runs);
  });

  it('tells the borders apart', () => {
    // Σ over all positions would be that of 'same'; a corner of 'valid' lacks the first or last rows.
    const shape = [2, 6, 6, 16] as const;
    const x = random(shape);
    const valid = gramOf(x, shape, { window: windowOf([3, 3], [1, 1], 'valid') });
    const same = bruteForce(patchesOf(x, shape, windowOf([3, 3], [1, 1], 'same')), false);
    expect(relativeError(valid, same)).toBeGreaterThan(0.1);
    // Within one matrix: the block of each place of the window is a sum over another rectangle.
    const block = (place: number): number => valid[place * 16 * (9 * 16 + 1)]!;
    expect(new Set([0, 1, 2, 3, 4, 5, 6, 7, 8].map(block)).size).toBe(9);
  });

  it('leaves no tensor', async () => {
    const window = windowOf([3, 2], [1, 1], 'same');
    await expectNoLeak(() => {
      gramOf(random([2, 5, 5, 8]), [2, 5, 5, 8], { window, ones: true });
      gramOf(random([9, 5]), [9, 5], { ones: true });
    });
  });

  it.each([
    [[2, 3], 1],
    [[1, 4, 2, 8], 3],
  ])('refuses images of shape %j under a window of side %d', (shape, side) => {
    const window = windowOf([side, side], [1, 1], 'valid');
    const x = tf.ones(shape);
    const caught = (() => {
      try {
        return gram(x, { window });
      } catch (error) {
        return error;
      }
    })();
    x.dispose();
    expect(FrugalError.is(caught, 'SHAPE')).toBe(true);
  });

  it.runIf(engine === 'native')('keeps its precision over many rows', () => {
    // Sums of one sign: in float alone, one after the other, the last bits of a hundred thousand terms are lost.
    const shape = [131072, 16] as const;
    const x = random(shape).map(Math.abs);
    expect(relativeError(gramOf(x, shape, {}), bruteForce(rowsOf(x, 16), false))).toBeLessThan(1e-6);
    const images = [24, 32, 32, 16] as const;
    const window = windowOf([3, 3], [1, 1], 'same');
    const y = gramOf(x.subarray(0, 24 * 32 * 32 * 16), images, { window });
    // The window's middle place sees every position.
    const middle = rowsOf(x.subarray(0, 24 * 32 * 32 * 16), 16);
    const inner = y.filter((_, at) => [at % 144, Math.floor(at / 144)].every((k) => k >= 64 && k < 80));
    expect(relativeError(inner, bruteForce(middle, false))).toBeLessThan(1e-6);
  });
});
