import { describe, expect, test } from 'vitest';
import { mesh, ring, staticExponential } from '../topology/graphs.js';
import { d2 } from './d2.js';
import { edm } from './edm.js';
import { simulate } from './simulate.js';
import { bias, distance, regression, reportsOf, run } from './testing/quadratics.js';

describe('edm', () => {
  const problem = regression();

  test('by hand: one rank, gradient 1, γ = 1, β = ½', async () => {
    const seen: number[] = [];
    await simulate(edm({ learningRate: 1, momentum: 0.5, topology: ring() }), {
      start: [[0]],
      gradient: () => [1],
      steps: 3,
      observe: ([x]) => void seen.push(x![0]!),
    });
    // m = ½, ¾, ⅞; without neighbours x⁺ − x = −γm.
    expect(seen).toEqual([-0.5, -1.25, -2.125]);
  });

  test('D² with β and (1 − β)γ', async () => {
    const ends = await run(edm({ learningRate: 0.1, topology: mesh() }), problem, 100);
    const expected = await run(d2({ learningRate: 0.01, momentum: 0.9, topology: mesh() }), problem, 100);
    expect(distance(ends, expected)).toBeLessThan(1e-13);
  });

  test('no bias, on a ring made lazy', async () => {
    const link = edm({ learningRate: 0.2, topology: ring() });
    expect(bias(problem, await run(link, problem, 2500))).toBeLessThan(1e-16);
    for (const { topology } of await reportsOf(link, problem, 1)) expect(topology).toBe('lazy ring');
  });

  test('refuses weights that are not symmetric', async () => {
    await expect(run(edm({ learningRate: 0.1, topology: staticExponential() }), problem, 1)).rejects.toThrow(
      /^edm: .*symmetric/,
    );
  });
});
