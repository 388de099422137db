import { clockAt } from '@frugal/core';
import { expect, test } from 'vitest';
import { constant } from './constant.js';

test('is the same everywhere, and needs no total', () => {
  const schedule = constant(0.3);
  expect([0, 10, 1e9].map((step) => schedule(clockAt(step)))).toEqual([0.3, 0.3, 0.3]);
});

test('refuses what is no finite number', () => {
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, '0.1' as unknown as number]) {
    expect(() => constant(value)).toThrow(/constant: expected value to be a finite number/);
  }
});
