import type { Scope } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** What the passes through the parts of one step have in common, and no others: a step that failed and is made again is another. */
export const stepOf = ({ plans }: Scope): object => plans;

/** Sums of tensors over the calls of a step, by name. They outlive the pass that they were seen in, and end with the next step. */
export interface Seen {
  /** Adds to a sum of this step; what was seen in another step is forgotten. */
  add(scope: Scope, name: string, value: tf.Tensor): void;
  /** A sum of the last step that was seen. */
  get(name: string): tf.Tensor | undefined;
  /** Frees everything. */
  forget(): void;
}

/** Makes an empty {@link Seen}. */
export function openSeen(): Seen {
  const sums = new Map<string, tf.Tensor>();
  let last: object | undefined;
  const forget = (): void => {
    for (const sum of sums.values()) sum.dispose();
    sums.clear();
  };
  return {
    add(scope, name, value) {
      if (stepOf(scope) !== last) forget();
      last = stepOf(scope);
      const before = sums.get(name);
      sums.set(name, tf.keep(before ? tf.add(before, value) : value.clone()));
      before?.dispose();
    },
    get: (name) => sums.get(name),
    forget,
  };
}
