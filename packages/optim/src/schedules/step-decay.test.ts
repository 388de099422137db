import { clockAt } from '@frugal/core';
import { expect, test } from 'vitest';
import { type StepDecayOptions, stepDecay } from './step-decay.js';

test('drops at the very step of each fraction', () => {
  const schedule = stepDecay({ initial: 8, factor: 0.5 });
  const values = [0, 49, 50, 74, 75, 99, 100, 150].map((step) => schedule(clockAt(step, 100)));
  expect(values).toEqual([8, 8, 4, 4, 2, 2, 2, 2]);
});

test('a drop at 0.7 of 10 steps is at step 7, although 0.7 is no binary fraction', () => {
  const schedule = stepDecay({ initial: 1, factor: 0, at: [0.7] });
  expect(Array.from({ length: 10 }, (_, step) => schedule(clockAt(step, 10)))).toEqual([1, 1, 1, 1, 1, 1, 1, 0, 0, 0]);
});

test('default: a tenth at half and at three quarters', () => {
  expect(stepDecay({ initial: 1 })(clockAt(99, 100))).toBeCloseTo(0.01, 15);
});

test('refuses bad options', () => {
  expect(() => stepDecay({ initial: 1, at: [1.5] })).toThrow(/at\[0\] in \[0, 1\] but received 1.5/);
  expect(() => stepDecay({ initial: 1, at: 0.5 as unknown as number[] })).toThrow(/at to be an array/);
  expect(() => stepDecay({ initial: 1, factor: -1 })).toThrow(/factor/);
  expect(() => stepDecay({ initial: 1, gamma: 0.1 } as StepDecayOptions)).toThrow(/received "gamma"/);
});

test('asks for the total, and says how to give it', () => {
  expect(() => stepDecay({ initial: 1 })(clockAt(3))).toThrow(/totalSteps/);
});
