import { clockAt } from '@frugal/core';
import { expect, test } from 'vitest';
import { demon } from './demon.js';
import { type RexOptions, rex } from './rex.js';

test('start, middle, end and past the end', () => {
  const schedule = rex({ initial: 3 });
  expect(schedule(clockAt(0, 10))).toBe(3);
  expect(schedule(clockAt(5, 10))).toBeCloseTo(2, 14); // 3 · ½ / ¾
  expect(schedule(clockAt(10, 10))).toBe(0);
  expect(schedule(clockAt(25, 10))).toBe(0);
});

test('is the curve of Demon with β_init = ½', () => {
  for (let step = 0; step <= 20; step++) {
    const clock = clockAt(step, 20);
    expect(rex({ initial: 0.5 })(clock)).toBeCloseTo(demon({ initial: 0.5 })(clock), 14);
  }
});

test('refuses bad options', () => {
  expect(() => rex({} as RexOptions)).toThrow(/initial/);
  expect(() => rex({ initial: 1, final: 0 } as RexOptions)).toThrow(/received "final"/);
});
