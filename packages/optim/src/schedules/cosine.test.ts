import { clockAt } from '@frugal/core';
import { expect, test } from 'vitest';
import { type CosineOptions, cosine } from './cosine.js';

test('start, third, middle, end and past the end', () => {
  const schedule = cosine({ initial: 3, final: 1 });
  expect(schedule(clockAt(0, 6))).toBe(3);
  expect(schedule(clockAt(2, 6))).toBeCloseTo(2.5, 14); // cos 60° = ½: 1 + 2·¾
  expect(schedule(clockAt(3, 6))).toBeCloseTo(2, 14);
  expect(schedule(clockAt(6, 6))).toBe(1);
  expect(schedule(clockAt(7, 6))).toBe(1);
});

test('refuses bad options', () => {
  expect(() => cosine({ initial: Number.POSITIVE_INFINITY })).toThrow(/initial/);
  expect(() => cosine({ initial: 1, restarts: 2 } as CosineOptions)).toThrow(/received "restarts"/);
});
