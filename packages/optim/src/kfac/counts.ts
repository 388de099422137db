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

/** Counts on the host, in an array that checkpoints keep. */
export interface KeptCounts {
  /** The counts. */
  now(): Counts;
  /** Whether a checkpoint has put others there since they were written, or asked for, last. */
  restored(): boolean;
  /** Changes some. */
  write(change: Partial<Counts>): void;
  /** The array. */
  readonly kept: Float64Array;
}

/** Makes counts that are all 0. */
export function createCounts(): KeptCounts {
  const kept = new Float64Array(5);
  let written = kept.slice();
  const now = (): Counts => {
    const [updates = 0, begun = 0, installed = 0, damping = 0, installedDamping = 0] = kept;
    return { updates, begun, installed, damping, installedDamping };
  };
  return {
    kept,
    now,
    restored() {
      const changed = kept.some((value, i) => value !== written[i]);
      written = kept.slice();
      return changed;
    },
    write(change) {
      const { updates, begun, installed, damping, installedDamping } = { ...now(), ...change };
      kept.set([updates, begun, installed, damping, installedDamping]);
      written = kept.slice();
    },
  };
}
