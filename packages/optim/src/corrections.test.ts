import { expect, test } from 'vitest';
import { correctionState } from './corrections.js';

test('1 − Π β over 2000 scheduled betas, to 1e-12', () => {
  const state = correctionState();
  let [p1, p2] = [1, 1];
  for (let t = 0; t < 2000; t++) {
    const [b1, b2] = [0.9 * (1 - t / 2000), 0.999 + 0.0009 * Math.sin(t)];
    p1 *= b1;
    p2 *= b2;
    const { first, second } = state.advance(b1, b2);
    expect(Math.abs(first / (1 - p1) - 1)).toBeLessThan(1e-12);
    expect(Math.abs(second / (1 - p2) - 1)).toBeLessThan(1e-12);
    expect([...state.kept]).toEqual([first, second]);
  }
});

test('the first step divides by exactly 1 − β', () => {
  const { first, second } = correctionState().advance(0.9, 0.999);
  expect(first).toBe(1 - 0.9);
  expect(second).toBe(1 - 0.999);
});

test('goes on from what a checkpoint has put there', () => {
  const [whole, restored] = [correctionState(), correctionState()];
  for (let t = 0; t < 7; t++) whole.advance(0.9, 0.999);
  restored.kept.set(whole.kept);
  expect(restored.advance(0.8, 0.99)).toEqual(whole.advance(0.8, 0.99));
});
