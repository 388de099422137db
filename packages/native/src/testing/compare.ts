import * as tf from '@tensorflow/tfjs';
import { expect } from 'vitest';
import { registerNative } from '../index.js';

/** A tensor, or several, of one run. */
export type Output = tf.Tensor | readonly tf.Tensor[];

/** Seeded numbers in [−1, 1). */
export function numbers(length: number, seed: number): Float32Array {
  let state = (seed * 2654435761 + 1) >>> 0;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** A tensor of seeded numbers, on the present backend. */
export function random(shape: readonly number[], seed: number): tf.Tensor {
  return tf.tensor(numbers(tf.util.sizeFromShape(shape as number[]), seed), shape as number[], 'float32');
}

/** Runs a kernel by name. */
export function runKernel(
  kernel: string,
  inputs: Record<string, tf.Tensor | null | undefined>,
  attrs: object = {},
): tf.Tensor[] {
  const result = tf.engine().runKernel(kernel, inputs as tf.NamedTensorMap, attrs as tf.NamedAttrMap);
  return Array.isArray(result) ? result : [result as tf.Tensor];
}

/** Runs a kernel of one output. */
export function runOne(
  kernel: string,
  inputs: Record<string, tf.Tensor | null | undefined>,
  attrs: object = {},
): tf.Tensor {
  return runKernel(kernel, inputs, attrs)[0]!;
}

/** Largest |a − b| over the largest |b|; equal infinities and NaN at the same places count as equal. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    const [a, b] = [actual[i]!, expected[i]!];
    if (Object.is(a, b) || a === b) {
      if (Number.isFinite(b)) scale = Math.max(scale, Math.abs(b));
      continue;
    }
    if (!Number.isFinite(a) || !Number.isFinite(b)) return Number.POSITIVE_INFINITY;
    worst = Math.max(worst, Math.abs(a - b));
    scale = Math.max(scale, Math.abs(b));
  }
  return scale === 0 ? worst : worst / scale;
}

interface Ran {
  readonly shapes: number[][];
  readonly dtypes: string[];
  readonly values: ArrayLike<number>[];
}

/** Runs `body` on a backend; nothing but the returned numbers remains. */
export function runOn(backend: 'cpu' | 'native', body: () => Output): Ran {
  void tf.setBackend(backend);
  const before = tf.memory().numTensors;
  const outputs = tf.tidy(() => [body()].flat() as tf.Tensor[]);
  const ran = {
    shapes: outputs.map((t) => t.shape),
    dtypes: outputs.map((t) => t.dtype),
    values: outputs.map((t) => t.dataSync().slice()),
  };
  tf.dispose(outputs);
  expect(tf.memory().numTensors, 'tensors left behind').toBe(before);
  return ran;
}

/** Asserts that `body` gives the same on both backends, and that no JavaScript kernel ran on the native one. */
export function expectSame(
  body: () => Output,
  { tolerance = 1e-5, fallbacks = {} as Record<string, number> } = {},
): void {
  const expected = runOn('cpu', body);
  const engine = registerNative();
  engine.resetCounters();
  const actual = runOn('native', body);
  expect(engine.counters().fallbacks).toEqual(fallbacks);
  expect(actual.shapes).toEqual(expected.shapes);
  expect(actual.dtypes).toEqual(expected.dtypes);
  for (let i = 0; i < expected.values.length; i++) {
    expect(relativeError(actual.values[i]!, expected.values[i]!), `output ${i}`).toBeLessThanOrEqual(tolerance);
  }
}

/** Asserts that the outputs of `body` on the native backend are `expected`. */
export function expectValues(body: () => Output, expected: readonly ArrayLike<number>[], tolerance = 1e-5): void {
  const actual = runOn('native', body);
  expect(actual.values.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    expect(relativeError(actual.values[i]!, expected[i]!), `output ${i}`).toBeLessThanOrEqual(tolerance);
  }
}

/** Runs fast-check properties reproducibly. */
export const RUNS = { seed: 20240601, numRuns: 40 } as const;
