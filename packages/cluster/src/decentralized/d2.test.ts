import { describe, expect, test } from 'vitest';
import { alone } from '../alone.js';
import { mesh, onePeerExponential, ring, staticExponential } from '../topology/graphs.js';
import { lazy, square, type Topology } from '../topology/topology.js';
import { d2 } from './d2.js';
import {
  averaged,
  bias,
  disagreement,
  distance,
  gradients,
  mixed,
  plus,
  type Positions,
  regression,
  reportsOf,
  run,
  zeros,
} from './testing/quadratics.js';

describe('d2', () => {
  const problem = regression();

  /** The recursion as published: x⁺ = W(2x − x⁻ − γ(m⁺ − m)), first step x⁺ = W(x − γm⁺). */
  function published(
    topology: Topology,
    rate: number,
    momentum: number,
    steps: number,
    start: Positions,
    on = problem,
  ): Positions {
    let [before, x, m]: Positions[] = [start, start, zeros(on)];
    for (let step = 0; step < steps; step++) {
      const next = plus(momentum, m!, 1, gradients(on, x!));
      const change = plus(-rate, next, step === 0 ? 0 : rate, m!);
      const reach = step === 0 ? x! : plus(2, x!, -1, before!);
      [before, x, m] = [x!, mixed(topology, plus(1, reach, 1, change)), next];
    }
    return x!;
  }

  test.each([0, 0.9])('β = %d: the published recursion, from different starts', async (momentum) => {
    const start = zeros(problem).map((x, i) => x.map((_, k) => Math.sin(i + k)));
    const link = d2({ learningRate: 0.02, momentum, topology: lazy(mesh()) });
    const expected = published(lazy(mesh()), 0.02, momentum, 60, start);
    expect(distance(await run(link, problem, 60, start), expected)).toBeLessThan(1e-12);
  });

  test.each([0, 0.9])('β = %d: no bias', async (momentum) => {
    const link = d2({ learningRate: momentum === 0 ? 0.05 : 0.02, momentum, topology: ring() });
    expect(bias(problem, await run(link, problem, 2500))).toBeLessThan(1e-16);
  });

  test('a ring of 8 has λ_min = −1/3: it takes (I + W)/2, and says so', async () => {
    const link = d2({ learningRate: 0.01, topology: ring() });
    expect(link.openRecursion(alone()).report().topology).toBe('ring');
    const ends = await run(link, problem, 100);
    for (const { topology } of await reportsOf(link, problem, 1)) expect(topology).toBe('lazy ring');
    expect(distance(ends, published(lazy(ring()), 0.01, 0, 100, zeros(problem)))).toBeLessThan(1e-12);
  });

  test('λ_min = −0.6: as published it diverges, made lazy it does not', async () => {
    const two = regression(2);
    const hasty: Topology = { ...ring(), weights: () => square(2, (i, j) => (i === j ? 0.2 : 0.8)) };
    const ends = await run(d2({ learningRate: 0.05, topology: hasty }), two, 2000);
    expect(bias(two, ends)).toBeLessThan(1e-16);
    expect(disagreement(published(hasty, 0.05, 0, 200, zeros(two), two))).toBeGreaterThan(1e6);
  });

  test('a ring of 5 is used as it is', async () => {
    const five = regression(5);
    const link = d2({ learningRate: 0.01, topology: ring() });
    for (const { topology } of await reportsOf(link, five, 1)) expect(topology).toBe('ring');
  });

  test('under a schedule the mean moves as in SGD', async () => {
    const rate = (step: number): number => (step === 4 ? 0 : 0.1 / (1 + step));
    const constant = { ...problem, gradient: (rank: number, x: Float64Array) => x.map((_, k) => Math.cos(rank * k)) };
    const ends = await run(d2({ learningRate: ({ step }) => rate(step), topology: mesh() }), constant, 12);
    const travelled = Array.from({ length: 12 }, (_, step) => rate(step)).reduce((a, b) => a + b, 0);
    const expected = averaged(plus(0, zeros(problem), -travelled, gradients(constant, zeros(problem))));
    expect(distance(averaged(ends), expected)).toBeLessThan(1e-13);
  });

  test('refuses what it would diverge on', async () => {
    const on = (topology: Topology) => run(d2({ learningRate: 0.01, topology }), problem, 1);
    await expect(on(staticExponential())).rejects.toThrow(/d2: expected a symmetric topology/);
    await expect(on(onePeerExponential())).rejects.toThrow(/symmetric/);
    const swinging: Topology = { ...ring(), period: () => 2 };
    await expect(on(swinging)).rejects.toThrow(/same weights in each step/);
  });
});
