import { stream, weightedSum } from '@frugal/core';
import { describe, expect, test } from 'vitest';
import { localCluster } from '../local.js';
import { fullyConnected, onePeerExponential, star } from '../topology/graphs.js';
import type { Topology } from '../topology/topology.js';
import { openMixer } from './mixer.js';
import { distance, mixed } from './testing/quadratics.js';

const valuesOf = (rank: number): Float64Array => {
  const random = stream(7, rank);
  return Float64Array.from({ length: 200 }, () => random.normal());
};

const mix = (size: number, topology: Topology, step = 0): Promise<Float64Array[]> =>
  localCluster(size, async (c) => {
    const values = valuesOf(c.rank);
    await openMixer(topology, c, weightedSum).mix(values, step);
    return values;
  });

describe('mixer', () => {
  test.each([
    [star(), 0],
    [onePeerExponential(), 1],
    [onePeerExponential(), 5],
  ])('W·values, whatever the weights: %o, step %i', async (topology, step) => {
    const all = Array.from({ length: 5 }, (_, rank) => valuesOf(rank));
    expect(distance(await mix(5, topology, step), mixed(topology, all, step))).toBeLessThan(1e-15);
  });

  test('equal rows of W give equal bits', async () => {
    const ends = await mix(5, fullyConnected());
    for (const values of ends) expect(values).toEqual(ends[0]);
    // Control: in another order the sums of these values do differ.
    const backwards = ends[0]!.map((_, k) => [4, 3, 2, 1, 0].reduce((sum, rank) => sum + valuesOf(rank)[k]! / 5, 0));
    expect(backwards).not.toEqual(ends[0]);
  });

  test('the mean over all ranks; bytes of both', async () => {
    const [sent] = await localCluster(4, async (c) => {
      const values = Float32Array.of(c.rank, -1);
      const mixer = openMixer(star(), c, weightedSum);
      await mixer.average(values);
      expect([...values]).toEqual([1.5, -1]);
      await mixer.mix(values, 0);
      return mixer.sent();
    });
    // 2 · ¾ of 8 bytes; rank 0 of a star has three neighbours.
    expect(sent).toBe(12 + 24);
  });
});
