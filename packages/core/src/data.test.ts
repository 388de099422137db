import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { batchCount, batches, checkDataset, type Dataset, slice } from './data.js';
import { expectNoLeak } from './testing/engines.js';

const data: Dataset = {
  name: 'five',
  origin: 'made',
  length: 5,
  shape: [1, 1, 2],
  inputs: Uint8Array.of(0, 10, 1, 11, 2, 12, 3, 13, 4, 14),
  normalize: { mean: [0, 10], std: [1, 2] },
  classes: ['x', 'y'],
  targets: Uint8Array.of(0, 1, 0, 1, 0),
};

const collect = (options: Parameters<typeof batches>[1], set = data): { xs: number[][]; ys: number[][] } => {
  const xs: number[][] = [];
  const ys: number[][] = [];
  for (const batch of batches(set, options)) {
    xs.push([...batch.xs.dataSync()]);
    ys.push([...batch.ys.dataSync()]);
  }
  return { xs, ys };
};

describe('batches', () => {
  it('normalises per channel and makes labels one-hot, in the stored order without a seed', () => {
    const { xs, ys } = collect({ batchSize: 2 });
    // (0−0)/1, (10−10)/2; (1−0)/1, (11−10)/2; …
    expect(xs).toEqual([
      [0, 0, 1, 0.5],
      [2, 1, 3, 1.5],
      [4, 2],
    ]);
    expect(ys).toEqual([
      [1, 0, 0, 1],
      [1, 0, 0, 1],
      [1, 0],
    ]);
  });

  it('visits every example once per epoch, in another order each epoch, the same order each run', () => {
    const order = (epoch: number): number[] =>
      collect({ batchSize: 2, shuffle: { seed: 1, epoch } })
        .xs.flat()
        .filter((_, i) => i % 2 === 0);
    expect([...order(0)].sort()).toEqual([0, 1, 2, 3, 4]);
    expect(order(0)).toEqual(order(0));
    expect([0, 1, 2, 3].some((epoch) => order(epoch).join() !== order(epoch + 1).join())).toBe(true);
  });

  it('skips batches for a resume and drops an incomplete one when asked', () => {
    expect(collect({ batchSize: 2, skip: 2 }).xs).toEqual([[4, 2]]);
    expect(collect({ batchSize: 2, dropLast: true }).xs).toHaveLength(2);
    expect(batchCount(data, { batchSize: 2 })).toBe(3);
  });

  it('hands target vectors on as they are', () => {
    const regression: Dataset = {
      name: 'r',
      origin: 'made',
      length: 2,
      shape: [1],
      inputs: Float32Array.of(1, 2),
      targets: Float32Array.of(5, 6, 7, 8),
    };
    expect(collect({ batchSize: 2 }, regression)).toEqual({ xs: [[1, 2]], ys: [[5, 6, 7, 8]] });
  });

  it('leaves no tensor behind, also when the loop breaks', async () => {
    await tf.setBackend('cpu');
    await expectNoLeak(() => collect({ batchSize: 2 }));
    await expectNoLeak(() => {
      for (const batch of batches(data, { batchSize: 2 })) {
        expect(batch.xs.shape).toEqual([2, 1, 1, 2]);
        break;
      }
    });
  });

  it('slices without copying', () => {
    const part = slice(data, 1, 3);
    expect(part.length).toBe(2);
    expect(part.inputs.buffer).toBe(data.inputs.buffer);
    expect([...part.targets]).toEqual([1, 0]);
  });
});

describe('checkDataset', () => {
  it.each([
    [{ length: 4 }, 'inputs hold 10 values, expected 4 × [1, 1, 2] = 8'],
    [{ targets: Uint8Array.of(0, 1) }, 'there are 2 labels for 5 examples'],
    [{ targets: Uint8Array.of(0, 1, 2, 0, 0) }, 'a label is not below the 2 classes'],
    [{ length: 0, inputs: new Uint8Array(0), targets: new Uint8Array(0) }, 'it is empty'],
  ])('refuses %o', (change, message) => {
    expect(() => checkDataset({ ...data, ...change })).toThrow(message);
  });
});
