import type { Link, Method } from '@frugal/core';
import { demon, linear, sgd } from '@frugal/optim';
import { topK } from '@frugal/sampling';

/** One way to train the same network. */
export interface Contender {
  /** Key in a results file. */
  readonly key: string;
  /** Title in tables. */
  readonly title: string;
  /** Its methods. */
  methods(): Method[];
  /** Its links. */
  optimizer(): Link;
}

const rate = 0.02;
const decaying = (): Link => sgd({ learningRate: linear({ initial: rate }), momentum: 0.9 });
// Demon lowers the effective rate by itself: η/(1 − β_t) falls linearly to η.
const withDemon = (): Link => sgd({ learningRate: rate, momentum: demon({ initial: 0.9 }) });

/** Exact, sampled, and sampled with Demon: the three ways of the main job. */
export const contenders: readonly Contender[] = [
  { key: 'exact', title: 'exact', methods: () => [], optimizer: decaying },
  { key: 'topk50', title: 'top-k 0.5', methods: () => [topK({ keep: 0.5 })], optimizer: decaying },
  { key: 'topk50demon', title: 'top-k 0.5 + Demon', methods: () => [topK({ keep: 0.5 })], optimizer: withDemon },
];
