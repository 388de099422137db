import * as tf from '@tensorflow/tfjs';
import { afterEach, expect, it } from 'vitest';
import { loadAddon } from '../addon.js';
import { numbers, runOne } from './compare.js';

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

const convolution = (side: number, stride: number, pad: 'same' | 'valid') => ({
  size: [side, side],
  strides: [stride, stride],
  pad,
});

/** Rows, shared products, patches, and channels that do not fill a register; all by several threads. */
const cases = [
  { name: 'rows', shape: [5000, 32], window: null, ones: false },
  { name: 'rows and ones', shape: [5000, 33], window: null, ones: true },
  { name: 'wide rows', shape: [300, 700], window: null, ones: false },
  { name: 'stride 1', shape: [20, 16, 16, 16], window: convolution(3, 1, 'same'), ones: true },
  { name: 'stride 1 of 20 channels', shape: [20, 16, 16, 20], window: convolution(5, 1, 'valid'), ones: false },
  { name: 'stride 2', shape: [20, 16, 16, 16], window: convolution(3, 2, 'same'), ones: true },
] as const;

/** What no other engine promises. Values are tested with the interface, in packages/core/src/kernels/gram.test.ts. */
export function gramRules(): void {
  const addon = loadAddon();
  const threads = addon.threads();
  afterEach(() => {
    addon.setThreads(threads);
  });
  it.each(cases)('gives the same bits with any number of threads: $name', ({ shape, window, ones }) => {
    void tf.setBackend('native');
    const x = tf.tensor(numbers(size(shape), 1), [...shape]);
    const results = [1, 2, 3, 1].map((count) => {
      addon.setThreads(count);
      const y = runOne('FrugalGram', { x }, { ones, window });
      const values = y.dataSync().slice();
      y.dispose();
      return values;
    });
    for (const values of results.slice(1)) expect(values.every((v, i) => Object.is(v, results[0]![i]))).toBe(true);
    x.dispose();
  });
  it('refuses a window that does not fit, and images of another rank', () => {
    void tf.setBackend('native');
    const image = tf.ones([1, 2, 2, 8]);
    const row = tf.ones([2, 2]);
    const run = (x: tf.Tensor, side: number) => () =>
      runOne('FrugalGram', { x }, { ones: false, window: convolution(side, 1, 'valid') });
    expect(run(image, 3)).toThrow(/FrugalGram/);
    expect(run(image, 4)).toThrow(/FrugalGram/);
    expect(run(row, 1)).toThrow(/FrugalGram/);
    tf.dispose([image, row]);
  });
}
