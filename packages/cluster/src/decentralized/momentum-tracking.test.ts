import { describe, expect, test } from 'vitest';
import { onePeerExponential, ring } from '../topology/graphs.js';
import { momentumTracking } from './momentum-tracking.js';
import {
  bias,
  distance,
  gradients,
  mixed,
  plus,
  type Positions,
  regression,
  reportsOf,
  run,
  traceOfTwo,
  zeros,
} from './testing/quadratics.js';

describe('momentumTracking', () => {
  const problem = regression();

  test('by hand: two ranks, constant gradients 0 and 2', async () => {
    // β = ½, γ = 1. m = 0, 2; y = 0, 2; x = 0, −2; c = m − 1 = −1, 1. Then m = 0, 3; y = 1, 2; x = −1 − y = −2, −3.
    const seen = await traceOfTwo(momentumTracking({ learningRate: 1, momentum: 0.5, topology: ring() }), [0, 0]);
    expect(seen).toEqual([
      [0, -2],
      [-2, -3],
    ]);
  });

  test.each([0, 0.5, 0.9])('β = %d: no bias, on a ring and on the one-peer graph', async (momentum) => {
    for (const topology of [ring(), onePeerExponential()]) {
      const link = momentumTracking({ learningRate: 0.05 * (1 - momentum), momentum, topology });
      expect(bias(problem, await run(link, problem, 1500))).toBeLessThan(1e-16);
    }
  });

  test('gradient tracking of velocities, y⁺ = Wy + m⁺ − m', async () => {
    let [x, m, y]: Positions[] = [zeros(problem), zeros(problem), zeros(problem)];
    for (let step = 0; step < 50; step++) {
      const next = plus(0.9, m!, 1, gradients(problem, x!));
      y = plus(1, mixed(ring(), y!), 1, plus(1, next, -1, m!));
      x = plus(1, mixed(ring(), x!), -0.01, y);
      m = next;
    }
    const link = momentumTracking({ learningRate: 0.01, topology: ring() });
    expect(distance(await run(link, problem, 50), x!)).toBeLessThan(1e-12);
    // Two neighbours, two vectors of 10 numbers.
    for (const { bytesPerStep } of await reportsOf(link, problem, 3)) expect(bytesPerStep).toBe(2 * 2 * 80);
  });
});
