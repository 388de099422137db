import { describe, expect, test } from 'vitest';
import { ring } from '../topology/graphs.js';
import { dmsgd } from './dmsgd.js';
import { dsgd } from './dsgd.js';
import { simulate } from './simulate.js';

describe('simulate', () => {
  const centers = [0, 1, 2, 9];
  const gradient = (rank: number, x: Float64Array): Float64Array => x.map((value) => value - centers[rank]!);
  const start = centers.map(() => [0]);

  test('the mean of ranks on quadratics of one curvature is that of gradient descent', async () => {
    const ends = await simulate(dsgd({ learningRate: 0.5, topology: ring() }), { start, gradient, steps: 3 });
    // The mean halves its distance from 3: 1.5, 2.25, 2.625.
    expect(ends.reduce((sum, [x]) => sum + x! / 4, 0)).toBeCloseTo(2.625, 14);
    expect(start).toEqual([[0], [0], [0], [0]]);
  });

  test('two runs of one link know nothing of one another', async () => {
    const link = dmsgd({ learningRate: 0.1, topology: ring() });
    const counts: number[][] = [];
    const go = () =>
      simulate(link, {
        start,
        gradient,
        steps: 7,
        report: (reports) => void counts.push(reports.map(({ steps }) => steps)),
      });
    const once = await go();
    expect(await go()).toEqual(once);
    expect(counts).toEqual([
      [7, 7, 7, 7],
      [7, 7, 7, 7],
    ]);
  });

  test('observe sees every step, with its number, and stops', async () => {
    const seen: number[] = [];
    const ends = await simulate(dsgd({ learningRate: 0.5, topology: ring() }), {
      start: [[8]],
      gradient: (_rank, x) => x,
      steps: 10,
      observe: ([x], step) => {
        seen.push(step, x![0]!);
        return step < 2;
      },
      report: ([of]) => void seen.push(of!.steps),
    });
    // Three steps, then the report.
    expect(seen).toEqual([0, 4, 1, 2, 2, 1, 3]);
    expect(ends[0]![0]).toBe(1);
  });

  test('schedules see the whole run; the step reaches the gradient', async () => {
    const link = dsgd({ learningRate: '1 - t', topology: ring() });
    const run = (options: { steps: number; total?: number }) =>
      simulate(link, { start: [[0]], gradient: (_rank, _x, step) => [10 ** step], ...options });
    // 1 − t = 1, ½; with a total of 4: 1, ¾.
    expect((await run({ steps: 2 }))[0]![0]).toBe(-6);
    expect((await run({ steps: 2, total: 4 }))[0]![0]).toBe(-8.5);
    await expect(run({ steps: -1 })).rejects.toThrow(/steps/);
  });

  test('an error of the gradient ends it', async () => {
    const failing = simulate(dsgd({ learningRate: 1, topology: ring() }), {
      start,
      gradient: (rank, x) => {
        if (rank === 2) throw new Error('no gradient');
        return x;
      },
      steps: 2,
    });
    await expect(failing).rejects.toThrow('no gradient');
  });
});
