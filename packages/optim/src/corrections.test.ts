import * as tf from '@tensorflow/tfjs';
import { beforeAll, expect, test } from 'vitest';
import { correctionState } from './corrections.js';

beforeAll(() => tf.setBackend('cpu'));

test('1 − Π β over 2000 scheduled betas, to 1e-12', () => {
  const state = correctionState('test');
  state.init();
  let [p1, p2] = [1, 1];
  for (let t = 0; t < 2000; t++) {
    const [b1, b2] = [0.9 * (1 - t / 2000), 0.999 + 0.0009 * Math.sin(t)];
    p1 *= b1;
    p2 *= b2;
    const { first, second } = state.advance(b1, b2);
    // 48 bits are kept from step to step: 4e-15 each.
    expect(Math.abs(first / (1 - p1) - 1)).toBeLessThan(1e-12);
    expect(Math.abs(second / (1 - p2) - 1)).toBeLessThan(1e-12);
  }
  expect(state.variable()?.shape).toEqual([2, 2]);
  state.dispose();
});

test('the first step divides by exactly 1 − β', () => {
  const state = correctionState('test');
  state.init();
  const { first, second } = state.advance(0.9, 0.999);
  expect(first / (1 - 0.9)).toBeCloseTo(1, 13);
  expect(second / (1 - 0.999)).toBeCloseTo(1, 13);
  state.dispose();
});
