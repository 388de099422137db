import { describe, expect, test, vi } from 'vitest';
import { onePeerExponential, ring } from '../topology/graphs.js';
import { dsgd } from './dsgd.js';
import { simulate } from './simulate.js';
import { bias, disagreement, distance, dsgdLimit, isolated, regression, run } from './testing/quadratics.js';

describe('dsgd', () => {
  const problem = regression();

  test('by hand: two ranks, two steps', async () => {
    // f = ½(x − c)², c = 0 and 4, γ = ½, from 2 and 6. Steps to 1 and 5, mean 3; then to 1.5 and 3.5, mean 2.5.
    const ends = await simulate(dsgd({ learningRate: 0.5, topology: ring() }), {
      start: [[2], [6]],
      gradient: (rank, x) => x.map((value) => value - 4 * rank),
      steps: 2,
    });
    expect(ends.map(([x]) => x)).toEqual([2.5, 2.5]);
  });

  test.each([0.02, 0.1])('γ = %d: the limit solves x = W(x − γ∇f(x))', async (rate) => {
    const ends = await run(dsgd({ learningRate: rate, topology: ring() }), problem, 70 / rate);
    expect(distance(ends, dsgdLimit(problem, ring(), rate))).toBeLessThan(1e-12);
  });

  test('the bias is O(γ²): bias/γ² does not depend on γ', () => {
    const ratio = [1e-3, 1e-4, 1e-5].map((rate) => bias(problem, dsgdLimit(problem, ring(), rate)) / rate ** 2);
    for (const value of ratio) expect(value / ratio[2]!).toBeCloseTo(1, 1);
    // Not a trivial problem: the ranks do disagree.
    expect(ratio[2]! / problem.heterogeneity).toBeGreaterThan(1);
  });

  test('control: without exchange the ranks do not agree', async () => {
    const steps = 2000;
    const apart = await run(dsgd({ learningRate: 0.02, topology: isolated }), problem, steps);
    const together = await run(dsgd({ learningRate: 0.02, topology: ring() }), problem, steps);
    expect(disagreement(apart)).toBeGreaterThan(0.5);
    expect(disagreement(together)).toBeLessThan(0.01);
  });

  test('one-peer: an exact average after log₂ n steps at rate 0', async () => {
    const start = Array.from({ length: 8 }, (_, i) => [i, -i * i]);
    const options = { start, gradient: (_: number, x: Float64Array) => x, steps: 3 };
    const link = dsgd({ learningRate: 0, topology: onePeerExponential() });
    expect(disagreement(await simulate(link, options))).toBe(0);
    expect(disagreement(await simulate(link, { ...options, steps: 2 }))).toBeGreaterThan(0.1);
    // Each of 8 ranks sends one message of two numbers a step.
    const sent = { topology: 'one-peer exponential', steps: 3, bytes: 3 * 16, bytesPerStep: 16, fullBytes: 3 * 16 };
    const report = vi.fn();
    await simulate(link, { ...options, report });
    expect(report.mock.calls).toEqual([[Array.from({ length: 8 }, () => sent)]]);
  });
});
