import { clockAt } from '@frugal/core';
import { expect, test } from 'vitest';
import { type LinearOptions, linear } from './linear.js';

test('start, quarter, end and past the end', () => {
  const schedule = linear({ initial: 1, final: 0.2 });
  expect(schedule(clockAt(0, 8))).toBe(1);
  expect(schedule(clockAt(2, 8))).toBeCloseTo(0.8, 15);
  expect(schedule(clockAt(8, 8))).toBe(0.2);
  expect(schedule(clockAt(80, 8))).toBe(0.2);
});

test('falls to 0 by default, and the last step still moves', () => {
  expect(linear({ initial: 1 })(clockAt(9, 10))).toBeCloseTo(0.1, 15);
  expect(linear({ initial: 1 })(clockAt(10, 10))).toBe(0);
});

test('refuses bad options', () => {
  expect(() => linear({ initial: Number.NaN })).toThrow(/initial/);
  expect(() => linear({ initial: 1, end: 0 } as LinearOptions)).toThrow(/received "end"/);
});
