import { clockAt } from '@frugal/core';
import { expect, test } from 'vitest';
import { linear } from './linear.js';
import { type WarmupOptions, warmup } from './warmup.js';

test('starts at from, reaches a number at step `steps`', () => {
  const schedule = warmup({ steps: 4, then: 1 });
  expect([0, 1, 2, 3, 4, 5].map((step) => schedule(clockAt(step)))).toEqual([0, 0.25, 0.5, 0.75, 1, 1]);
  const lifted = warmup({ steps: 4, then: 1, from: 0.25 });
  expect(lifted(clockAt(0))).toBe(0.25);
  expect(lifted(clockAt(2))).toBeCloseTo(0.625, 15);
});

test('the inner schedule sees the clock of the run, and there is no jump', () => {
  const inner = linear({ initial: 1 });
  const schedule = warmup({ steps: 5, then: inner });
  for (const step of [5, 6, 10, 20, 30]) expect(schedule(clockAt(step, 20))).toBe(inner(clockAt(step, 20)));
  // Before: along the line to then(5) = 0.75.
  for (const step of [0, 1, 4]) expect(schedule(clockAt(step, 20))).toBeCloseTo((0.75 * step) / 5, 15);
});

test('takes formulas, and needs a total only where they do', () => {
  expect(warmup({ steps: 2, then: '0.1 / (1 + step)' })(clockAt(4))).toBeCloseTo(0.02, 15);
  expect(() => warmup({ steps: 2, then: '1 - t' })(clockAt(0))).toThrow(/totalSteps/);
});

test('refuses bad options', () => {
  expect(() => warmup({ steps: 0, then: 1 })).toThrow(/steps/);
  expect(() => warmup({ steps: 1.5, then: 1 })).toThrow(/steps to be an integer/);
  expect(() => warmup({ steps: 1, then: 'x' })).toThrow(/"x"/);
  expect(() => warmup({ steps: 1, then: 1, start: 0 } as WarmupOptions)).toThrow(/received "start"/);
});
