import { clockAt } from '@frugal/core';
import { expect, test } from 'vitest';
import { golden } from '../testing/golden.js';
import { type OneCycleOptions, oneCycle, oneCycleMomentum } from './one-cycle.js';

// Float64 on both sides; they differ by the order of a few operations.
const CLOSE = 12;

test("PyTorch's OneCycleLR at every step of 40", () => {
  const rate = oneCycle({ peak: 0.5 });
  const momentum = oneCycleMomentum();
  const { oneCycle: expected } = golden();
  expect(expected.length).toBe(40);
  expected.forEach(([lr, mu], step) => {
    expect(rate(clockAt(step, 40))).toBeCloseTo(lr as number, CLOSE);
    expect(momentum(clockAt(step, 40))).toBeCloseTo(mu as number, CLOSE);
  });
});

test('start, peak, last step and past the end', () => {
  const rate = oneCycle({ peak: 1 });
  expect(rate(clockAt(0, 100))).toBeCloseTo(1 / 25, 15);
  expect(rate(clockAt(29, 100))).toBe(1); // warmup · total − 1
  for (const step of [99, 100, 1000]) expect(rate(clockAt(step, 100))).toBeCloseTo(1 / 25e4, 15);
  const momentum = oneCycleMomentum({ high: 0.9, low: 0.5 });
  expect([0, 29, 99, 100].map((step) => momentum(clockAt(step, 100)))).toEqual([0.9, 0.5, 0.9, 0.9]);
});

test('runs too short for a warm-up have none, and stay between 0 and the peak', () => {
  // warmup · total − 1 = −1: step 0 is a tenth down the cosine.
  expect(oneCycle({ peak: 1, warmup: 0, finalDivide: 1e9 })(clockAt(0, 10))).toBeCloseTo(
    (1 + Math.cos(Math.PI / 10)) / 2,
    9,
  );
  for (const total of [1, 2, 3, 4, 5]) {
    for (let step = 0; step <= total; step++) {
      for (const warmup of [0, 0.3, 0.5, 1]) {
        const value = oneCycle({ peak: 1, warmup })(clockAt(step, total));
        expect(value).toBeGreaterThanOrEqual(0);
        expect(value).toBeLessThanOrEqual(1);
      }
    }
  }
});

test('refuses bad options', () => {
  expect(() => oneCycle({ peak: 1, divide: 0 })).toThrow(/divide in \(0, ∞\)/);
  expect(() => oneCycle({ peak: 1, warmup: 2 })).toThrow(/warmup/);
  expect(() => oneCycle({ peak: 1, pctStart: 0.2 } as OneCycleOptions)).toThrow(/received "pctStart"/);
  expect(() => oneCycleMomentum({ high: 1 })).toThrow(/high in \[0, 1\)/);
});
