import { describe, expect, test } from 'vitest';
import { fullyConnected, ring } from '../topology/graphs.js';
import { daDmsgd } from './da-dmsgd.js';
import {
  averaged,
  bias,
  distance,
  dsgdLimit,
  gradients,
  plus,
  type Positions,
  regression,
  reportsOf,
  run,
  traceOfTwo,
  zeros,
} from './testing/quadratics.js';

describe('daDmsgd', () => {
  const problem = regression();

  test('by hand: the velocity is averaged too', async () => {
    // Gradients 0 and 2, γ = 1, β = ½: m = 0, 2, x = 0, −2 → −1, −1, m → 1, 1. Then m = ½, 2½, x = −1½, −3½ → −2½.
    const seen = await traceOfTwo(daDmsgd({ learningRate: 1, momentum: 0.5, topology: ring() }), [0, 0]);
    expect(seen).toEqual([
      [-1, -1],
      [-2.5, -2.5],
    ]);
  });

  test('fully connected: momentum SGD on the mean of the losses', async () => {
    let [x, m]: Positions[] = [zeros(problem), zeros(problem)];
    for (let step = 0; step < 50; step++) {
      m = plus(0.9, m!, 1, averaged(gradients(problem, x!)));
      x = plus(1, x!, -0.01, m);
    }
    const ends = await run(daDmsgd({ learningRate: 0.01, topology: fullyConnected() }), problem, 50);
    expect(distance(ends, x!)).toBeLessThan(1e-13);
  });

  test('its bias lies between DSGD(γ) and DSGD(γ/(1 − β)), at twice the bytes', async () => {
    const link = daDmsgd({ learningRate: 0.01, topology: ring() });
    const found = bias(problem, await run(link, problem, 4000));
    expect(found).toBeGreaterThan(1.5 * bias(problem, dsgdLimit(problem, ring(), 0.01)));
    expect(found).toBeLessThan(0.5 * bias(problem, dsgdLimit(problem, ring(), 0.1)));
    // Two neighbours, two vectors of 10 numbers.
    for (const { bytesPerStep } of await reportsOf(link, problem, 3)) expect(bytesPerStep).toBe(2 * 2 * 80);
  });
});
