import { type Communicator, FrugalError, type WeightedSum } from '@frugal/core';
import { checkWeights, neighbours, type Neighbours, type Topology } from '../topology/topology.js';
import type { Vector } from './recursion.js';

/** Averages vectors of one rank with its neighbours. */
export interface Mixer {
  /** The topology in use. */
  readonly topology: Topology;
  /** Replaces the contents of `values` by Σ_j w_ij·values_j, with the weights of this step. */
  mix(values: Vector, step: number): Promise<void>;
  /** Replaces the contents of `values` by their mean over all ranks. */
  average(values: Vector): Promise<void>;
  /** Bytes that this rank has sent. */
  sent(): number;
}

/** Weights and parts of Σ_j w_ij·values_j in the order of ranks, so that equal rows of W give equal bits. */
function termsOf(
  values: Vector,
  received: readonly Vector[],
  rank: number,
  { self, from }: Neighbours,
): readonly [weights: number[], parts: Vector[]] {
  const before = from.filter((neighbour) => neighbour.rank < rank).length;
  const weights = from.map(({ weight }) => weight).toSpliced(before, 0, self);
  return [weights, [...received.slice(0, before), values, ...received.slice(before)]];
}

/**
 * Makes the mixer of one rank; checks all weights of a period. Throws `CONFIG`.
 *
 * @param sum - what adds, rounding once
 */
export function openMixer(topology: Topology, communicator: Communicator, sum: WeightedSum): Mixer {
  const { rank, size } = communicator;
  const rounds = Array.from({ length: topology.period(size) }, (_, step) => {
    const weights = topology.weights(size, step);
    checkWeights(topology, size, weights);
    return neighbours(weights, rank);
  });
  let bytes = 0;
  return {
    topology,
    async mix(values, step) {
      const round = rounds[step % rounds.length];
      if (!round) throw new FrugalError('CONFIG', `${topology.name}: expected a step from 0 but received ${step}.`);
      const peers = { to: round.to, from: round.from.map((neighbour) => neighbour.rank) };
      const received = await communicator.exchange<Vector>(values, peers);
      sum(values, ...termsOf(values, received, rank, round));
      bytes += round.to.length * values.byteLength;
    },
    async average(values) {
      await communicator.allReduce(values);
      for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) / size;
      // The least that an all-reduce can do: a reduce-scatter and an all-gather.
      bytes += (2 * (size - 1) * values.byteLength) / size;
    },
    sent: () => bytes,
  };
}
