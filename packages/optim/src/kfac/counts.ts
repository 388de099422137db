import type { State } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** How far a run of K-FAC is. */
export interface Counts {
  /** Updates of factors. */
  readonly updates: number;
  /** Decompositions begun. */
  readonly begun: number;
  /** Decompositions in use. */
  readonly installed: number;
  /** Damping when the last one was begun. */
  readonly damping: number;
  /** Damping of the one in use. */
  readonly installedDamping: number;
}

const NONE: Counts = { updates: 0, begun: 0, installed: 0, damping: 0, installedDamping: 0 };

/** Counts in a Variable, where checkpoints find them, read again only after somebody else has written there. */
export interface KeptCounts {
  /** Makes the Variable. */
  init(): void;
  /** The counts. */
  now(): Counts;
  /** Whether a checkpoint has put them there since the last call. */
  restored(): boolean;
  /** Changes some. */
  write(change: Partial<Counts>): void;
  state(): State;
  dispose(): void;
}

/** Makes counts that are kept as `name`. */
export function createCounts(name: string): KeptCounts {
  let variable: tf.Variable | undefined;
  let known: Counts = NONE;
  let written: object | undefined;
  let loaded = false;
  const assign = (counts: Counts): void => {
    known = counts;
    tf.tidy(() => variable?.assign(tf.tensor1d(Object.values(counts))));
    written = variable?.dataId;
  };
  const now = (): Counts => {
    if (variable === undefined || variable.dataId === written) return known;
    const [updates = 0, begun = 0, installed = 0, damping = 0, installedDamping = 0] = variable.dataSync();
    known = { updates, begun, installed, damping, installedDamping };
    written = variable.dataId;
    loaded = true;
    return known;
  };
  const dispose = (): void => {
    variable?.dispose();
    variable = undefined;
  };
  return {
    init() {
      dispose();
      variable = tf.tidy(() => tf.variable(tf.zeros([Object.keys(NONE).length]), false));
      assign(NONE);
      loaded = false;
    },
    now,
    restored() {
      now();
      const result = loaded;
      loaded = false;
      return result;
    },
    write: (change) => assign({ ...now(), ...change }),
    state: () => new Map(variable ? [[name, variable]] : []),
    dispose,
  };
}
