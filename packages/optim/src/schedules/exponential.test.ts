import { clockAt } from '@frugal/core';
import { expect, test } from 'vitest';
import { type ExponentialOptions, exponential } from './exponential.js';

test('rate belongs to the whole run', () => {
  const schedule = exponential({ initial: 2, rate: Math.log(100) });
  expect(schedule(clockAt(0, 50))).toBe(2);
  expect(schedule(clockAt(25, 50))).toBeCloseTo(0.2, 14);
  expect(schedule(clockAt(50, 50))).toBeCloseTo(0.02, 14);
  expect(schedule(clockAt(500, 50))).toBeCloseTo(0.02, 14);
});

test('a constant factor per step', () => {
  const schedule = exponential({ initial: 1, rate: 3 });
  const at = (step: number): number => schedule(clockAt(step, 30));
  for (let step = 0; step < 30; step++) expect(at(step + 1) / at(step)).toBeCloseTo(Math.exp(-0.1), 13);
});

test('refuses bad options', () => {
  expect(() => exponential({ initial: 1 } as ExponentialOptions)).toThrow(/rate/);
  expect(() => exponential({ initial: 1, rate: 1, gamma: 1 } as ExponentialOptions)).toThrow(/received "gamma"/);
});
