import * as tf from '@tensorflow/tfjs';

/** Sums of tensors over the calls of a step, by name. They outlive the pass that they were seen in, and end with the next step. */
export interface Seen {
  /** Adds to a sum of this step; what was seen in another step is forgotten. */
  add(step: number, name: string, value: tf.Tensor): void;
  /** A sum of the last step that was seen. */
  get(name: string): tf.Tensor | undefined;
  /** Frees everything. */
  forget(): void;
}

/** Makes an empty {@link Seen}. */
export function openSeen(): Seen {
  const sums = new Map<string, tf.Tensor>();
  let last = -1;
  const forget = (): void => {
    for (const sum of sums.values()) sum.dispose();
    sums.clear();
  };
  return {
    add(step, name, value) {
      if (step !== last) forget();
      last = step;
      const before = sums.get(name);
      sums.set(name, tf.keep(before ? tf.add(before, value) : value.clone()));
      before?.dispose();
    },
    get: (name) => sums.get(name),
    forget,
  };
}
