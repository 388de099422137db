import type { OpenedWeights, Param, RunContext, Scope } from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';
import { zeros } from '../slots.js';

/** What an average of weights tells of itself. */
export interface AverageReport {
  /** Weights that were averaged so far: steps, for an average of every step. */
  readonly count: number;
}

/** How one average goes on. */
export interface Averaging {
  /** Name of the link. */
  readonly name: string;
  /** Does this step count? */
  counts(scope: Scope): boolean;
  /** What the average keeps of itself when the `count`-th weights join, from 1; the first ones replace it. */
  kept(scope: Scope, count: number): number;
  /** Moves an average: average ← kept·average + (1 − kept)·value. */
  move(average: tf.Variable, value: tf.Tensor, kept: number): void;
}

/**
 * Opens an average of all weights, trainable or not, that training itself does not see. Until the first weights have joined,
 * validation and the end of the run have the weights themselves.
 */
export function openAverage(
  { name, counts, kept, move }: Averaging,
  { params, statistics }: RunContext,
): OpenedWeights<AverageReport> {
  const all: readonly Param[] = [...params, ...statistics];
  const averages = all.map(({ value }) => zeros(value.shape));
  const count = new Float64Array(1);
  return {
    moved(scope) {
      if (!counts(scope)) return;
      const joined = (count[0] as number) + 1;
      count[0] = joined;
      for (const [i, { value }] of all.entries()) {
        const average = averages[i] as tf.Variable;
        // A copy: the weight itself changes in place.
        if (joined === 1) average.assign(value.mul(1));
        else move(average, value, kept(scope, joined));
      }
    },
    settled: () =>
      new Map(count[0] === 0 ? [] : all.map((param, i) => [param.name, averages[i] as tf.Variable] as const)),
    state: () =>
      new Map<string, tf.Variable | Float64Array>([
        ...all.map((param, i) => [`${name}/average/${param.name}`, averages[i] as tf.Variable] as const),
        [`${name}/count`, count],
      ]),
    report: () => ({ count: count[0] as number }),
    dispose() {
      for (const average of averages) average.dispose();
    },
  };
}
