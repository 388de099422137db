import { describe, expect, test } from 'vitest';
import { ring, staticExponential } from '../topology/graphs.js';
import { dmsgd } from './dmsgd.js';
import { slowMo } from './slow-mo.js';
import {
  averaged,
  disagreement,
  distance,
  gradients,
  isolated,
  mixed,
  plus,
  type Positions,
  regression,
  reportsOf,
  run,
  zeros,
} from './testing/quadratics.js';

describe('slowMo', () => {
  const problem = regression();
  const outer = { every: 5, slowMomentum: 0.6, slowLearningRate: 0.8 };

  test("the paper's recursion, which divides by γ, with a rate for each round", async () => {
    const rate = (round: number): number => 0.02 / (1 + round);
    let [x, m, u]: Positions[] = [zeros(problem), zeros(problem), zeros(problem)];
    for (let round = 0; round < 6; round++) {
      const anchor = x!;
      for (let step = 0; step < 5; step++) {
        m = plus(0.9, m!, 1, gradients(problem, x!));
        x = mixed(staticExponential(), plus(1, x!, -rate(round), m));
      }
      u = plus(0.6, u!, 1 / rate(round), plus(1, anchor, -1, averaged(x!)));
      x = plus(1, anchor, -0.8 * rate(round), u);
    }
    const link = slowMo({
      ...outer,
      learningRate: ({ step }) => rate(Math.floor(step / 5)),
      topology: staticExponential(),
    });
    const ends = await run(link, problem, 30);
    expect(distance(ends, x!)).toBeLessThan(1e-12);
    expect(disagreement(ends)).toBeLessThan(1e-28);
    // 3 messages of 80 bytes a step, and 2 · 7/8 · 80 bytes every fifth.
    for (const { bytesPerStep } of await reportsOf(link, problem, 30))
      expect(bytesPerStep).toBeCloseTo(3 * 80 + (2 * 7 * 80) / 8 / 5, 9);
  });

  test('between two averages it is DmSGD', async () => {
    const link = slowMo({ ...outer, learningRate: 0.01, topology: ring() });
    const base = await run(dmsgd({ learningRate: 0.01, topology: ring() }), problem, 4);
    expect(await run(link, problem, 4)).toEqual(base);
  });

  test('β_s = 0, α = 1, no neighbours: local SGD, which agrees every τ steps only', async () => {
    const link = slowMo({ every: 5, slowMomentum: 0, learningRate: 0.01, topology: isolated });
    expect(disagreement(await run(link, problem, 10))).toBeLessThan(1e-28);
    expect(disagreement(await run(link, problem, 11))).toBeGreaterThan(1e-4);
  });

  test('refuses bad options', () => {
    const make = (options: object) => () => slowMo({ learningRate: 0.1, topology: ring(), ...options });
    expect(make({ every: 0 })).toThrow(/every/);
    expect(make({ slowMomentum: 1 })).toThrow(/slowMomentum/);
    expect(make({ slowLearningRate: 0 })).toThrow(/slowLearningRate/);
    expect(make({ tau: 3 })).toThrow(/tau/);
  });
});
