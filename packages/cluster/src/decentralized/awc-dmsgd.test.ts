import { describe, expect, test } from 'vitest';
import { ring } from '../topology/graphs.js';
import { entry } from '../topology/topology.js';
import { awcDmsgd } from './awc-dmsgd.js';
import { bias, distance, dsgdLimit, fixedPoint, regression, run, traceOfTwo } from './testing/quadratics.js';

describe('awcDmsgd', () => {
  test('by hand: the average does not see the gradient of the step', async () => {
    // From 2 and 6, gradients 0 and 2, γ = 1, β = ½: mean 4, so 4 and 2; then m = 0 and 3, mean 3, so 3 and 0.
    const seen = await traceOfTwo(awcDmsgd({ learningRate: 1, momentum: 0.5, topology: ring() }), [2, 6]);
    expect(seen).toEqual([
      [4, 2],
      [3, 0],
    ]);
  });

  test('the limit solves (I − W)x = −γ/(1 − β)·∇f(x), further off than DmSGD', async () => {
    const problem = regression();
    const w = ring().weights(8, 0);
    const [rate, momentum] = [0.02, 0.8];
    const limit = fixedPoint(
      problem,
      (i, j) => entry(w, i, j),
      rate / (1 - momentum),
      (i, j) => (i === j ? 1 : 0),
    );
    const ends = await run(awcDmsgd({ learningRate: rate, momentum, topology: ring() }), problem, 2000);
    expect(distance(ends, limit)).toBeLessThan(1e-12);
    expect(bias(problem, ends)).toBeGreaterThan(1.2 * bias(problem, dsgdLimit(problem, ring(), rate / (1 - momentum))));
  });
});
