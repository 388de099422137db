import * as tf from '@tensorflow/tfjs';
import { stream, type Stream } from './rng.js';
import type { Clock } from './schedule.js';
import type { Site } from './site.js';

/** What lives for one step: the clock, seeded streams, the plans that were made, and tensors kept until its end. */
export interface Scope {
  /** Where the run is. */
  readonly clock: Clock;
  /** Seed of the run. */
  readonly seed: number;
  /** Rank of this process; 0 on one machine. */
  readonly rank: number;
  /** Share of the examples of this step that this rank has: 1 on one machine. Weighted by it, gradients of ranks add up. */
  readonly share: number;
  /** Part of the step, from 0, where its batch passes through in parts: see `accumulate` of the trainer. */
  readonly part: number;
  /**
   * What dY of this part is to be multiplied by to be that of the step's mean loss. The trainer has done so, hence 1; `fit` takes
   * the mean of each part, hence 1/k where `accumulate` is k.
   */
  readonly lossScale: number;
  /** The stream of (seed, step, rank, part, path) for this step. */
  random(...path: readonly (string | number)[]): Stream;
  /** The plan that each site's rule made in this step. */
  readonly plans: Map<Site, unknown>;
  /** Keeps a tensor until the end of the step, under a name. */
  keep(name: string, tensor: tf.Tensor): void;
  /** A tensor kept in this step. */
  get(name: string): tf.Tensor | undefined;
  /** Ends the step: disposes what was kept. */
  end(): void;
}

/** Opens the scope of one step. */
export function openScope(clock: Clock, seed: number, rank = 0, share = 1, lossScale = 1): Scope {
  const kept = new Map<string, tf.Tensor>();
  return {
    clock,
    seed,
    rank,
    share,
    part: 0,
    lossScale,
    random: (...path) => stream(seed, 'step', clock.step, 'rank', rank, ...path),
    plans: new Map(),
    keep(name, tensor) {
      kept.get(name)?.dispose();
      kept.set(name, tf.keep(tensor.clone()));
    },
    get: (name) => kept.get(name),
    end() {
      for (const tensor of kept.values()) tensor.dispose();
      kept.clear();
    },
  };
}

/** The scope of a later part of the same step: what is kept and planned is shared, what is drawn is drawn anew. */
export function partOfScope(scope: Scope, part: number): Scope {
  const { seed, clock, rank } = scope;
  const random: Scope['random'] = (...path) => stream(seed, 'step', clock.step, 'rank', rank, 'part', part, ...path);
  return part === 0 ? scope : { ...scope, part, random };
}
