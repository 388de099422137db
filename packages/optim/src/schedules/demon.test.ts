import { clockAt } from '@frugal/core';
import { expect, test } from 'vitest';
import { type DemonOptions, demon } from './demon.js';

const FRACTIONS = [0, 25, 50, 75, 90, 95, 99, 100];

test.each([
  [0.9, [0.9, 0.87097, 0.81818, 0.69231, 0.47368, 0.31034, 0.08257, 0]],
  [0.95, [0.95, 0.93443, 0.90476, 0.82609, 0.65517, 0.48718, 0.15966, 0]],
])('table of β_init = %d', (initial, table) => {
  const values = FRACTIONS.map((step) => demon({ initial })(clockAt(step, 100)));
  values.forEach((value, i) => expect(value).toBeCloseTo(table[i] as number, 5));
});

test.each([0, 0.1, 0.5, 0.9, 0.95, 0.99])('the gain falls linearly from 1/(1 − β) to 1, β_init = %d', (initial) => {
  const T = 997;
  for (let t = 0; t <= T; t++) {
    const gain = 1 / (1 - demon({ initial })(clockAt(t, T)));
    const line = 1 + ((1 - t / T) * initial) / (1 - initial);
    // Float64: 1/(1 − β) magnifies an error of β by at most 1/(1 − β) = 100.
    expect(Math.abs(gain / line - 1)).toBeLessThan(1e-12);
  }
});

test('the first step has exactly β_init; the end and all after it exactly 0', () => {
  for (const initial of [0.9, 0.95, 0.7, 1 / 3]) expect(demon({ initial })(clockAt(0, 10))).toBe(initial);
  // Without the clamp the denominator vanishes at t/T = 1/β = 1.111.
  for (const step of [900, 999, 1000, 1001, 1e6]) expect(demon()(clockAt(step, 900))).toBe(0);
});

test('never rises', () => {
  const values = Array.from({ length: 101 }, (_, step) => demon({ delay: 7 })(clockAt(step, 100)));
  for (let i = 1; i < values.length; i++) expect(values[i] as number).toBeLessThanOrEqual(values[i - 1] as number);
});

test('a total of its own replaces that of the run, which is then not asked for', () => {
  const fixed = demon({ total: 50 });
  expect(fixed(clockAt(25))).toBeCloseTo(0.81818, 5);
  expect(fixed(clockAt(50, 1000))).toBe(0);
  expect(() => demon()(clockAt(25))).toThrow(/totalSteps/);
});

test('delay: β_init until d, then the curve over the rest', () => {
  const delayed = demon({ total: 120, delay: 20 });
  for (const step of [0, 19, 20]) expect(delayed(clockAt(step))).toBe(0.9);
  expect(delayed(clockAt(70))).toBeCloseTo(demon({ total: 100 })(clockAt(50)), 14);
  expect(delayed(clockAt(120))).toBe(0);
});

test('limit: an endless run has a constant momentum', () => {
  const endless = demon({ total: Number.MAX_SAFE_INTEGER });
  expect(endless(clockAt(1e5))).toBeCloseTo(0.9, 10);
});

test('refuses bad options', () => {
  expect(() => demon({ initial: 1 })).toThrow(/demon: expected initial in \[0, 1\) but received 1/);
  expect(() => demon({ initial: -0.1 })).toThrow(/initial/);
  expect(() => demon({ total: 0 })).toThrow(/total/);
  expect(() => demon({ total: 10.5 })).toThrow(/total to be an integer/);
  expect(() => demon({ delay: -1 })).toThrow(/delay/);
  expect(() => demon({ total: 10, delay: 10 })).toThrow(/delay below the total of 10 steps but received 10/);
  expect(() => demon({ delay: 10 })(clockAt(0, 5))).toThrow(/delay below the total of 5 steps/);
  expect(() => demon({ beta: 0.9 } as DemonOptions)).toThrow(/received "beta"/);
});
