import { type Param, weightedSum } from '@frugal/core';
import { expectNoLeak, describeEngines } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { openBuckets } from './buckets.js';

const paramOf = (name: string, shape: number[]): Param => ({
  name,
  value: tf.tidy(() => tf.variable(tf.zeros(shape))),
});

const namesOf = (bytes: number, params: readonly Param[]): string[][] =>
  openBuckets(params, bytes, weightedSum).map((bucket) => bucket.params.map(({ name }) => name));

await describeEngines('buckets', () => {
  test('the last layer comes first; a large weight stands alone', () => {
    const params = [paramOf('a', [2]), paramOf('b', [5]), paramOf('c', [1]), paramOf('d', [2])];
    expect(namesOf(12, params)).toEqual([['d', 'c'], ['b'], ['a']]);
    expect(namesOf(16, params)).toEqual([['d', 'c'], ['b'], ['a']]);
    expect(namesOf(1000, params)).toEqual([['d', 'c', 'b', 'a']]);
    expect(namesOf(4, params)).toEqual([['d'], ['c'], ['b'], ['a']]);
    expect(namesOf(4, [])).toEqual([]);
    tf.dispose(params.map(({ value }) => value));
  });

  test('what is packed comes back: scaled, smaller than the weight, or as zeros', async () => {
    const params = [paramOf('a', [2, 2]), paramOf('b', [3]), paramOf('c', [2])];
    await expectNoLeak(async () => {
      const [bucket] = openBuckets(params, 1000, weightedSum);
      const updates = new Map<string, tf.Tensor>([
        ['a', tf.tensor2d([[1, 2]])],
        ['c', tf.tensor1d([3, 4])],
      ]);
      const values = await bucket!.pack(updates, 0.5);
      expect([...values]).toEqual([1.5, 2, 0, 0, 0, 0.5, 1]);
      const result = bucket!.unpack();
      // The bucket is free: the tensors do not change with it.
      values.fill(9);
      expect([...result].map(([name, t]) => [name, t.shape, [...t.dataSync()]])).toEqual([
        ['c', [2], [1.5, 2]],
        ['b', [3], [0, 0, 0]],
        ['a', [1, 2], [0.5, 1]],
      ]);
      tf.dispose([...result.values(), ...updates.values()]);
    });
    tf.dispose(params.map(({ value }) => value));
  });

  test('a part that counts for nothing may be NaN; another may not', async () => {
    const params = [paramOf('a', [2])];
    const updates = new Map([['a', tf.tensor1d([Number.NaN, 1])]]);
    const [bucket] = openBuckets(params, 1000, weightedSum);
    expect([...(await bucket!.pack(updates, 0))]).toEqual([0, 0]);
    expect([...(await bucket!.pack(updates, 0.5))]).toEqual([Number.NaN, 0.5]);
    tf.dispose([...updates.values(), ...params.map(({ value }) => value)]);
  });
});
