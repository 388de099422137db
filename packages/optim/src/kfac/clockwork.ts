/** What the time of K-FAC goes into. */
export type Phase = 'factors' | 'decompose' | 'precondition' | 'exchange';

/** Adds up time by phase. Where an engine works asynchronously, on a GPU, it is the time until the work was handed over. */
export interface Clockwork {
  /** Adds the time since `started`, of `performance.now`. */
  add(phase: Phase, started: number): void;
  /** Milliseconds of each phase. */
  milliseconds(): Record<Phase, number>;
}

/** Makes a clockwork at zero. */
export function createClockwork(): Clockwork {
  const sums: Record<Phase, number> = { factors: 0, decompose: 0, precondition: 0, exchange: 0 };
  return {
    add(phase, started) {
      sums[phase] += performance.now() - started;
    },
    milliseconds: () => ({ ...sums }),
  };
}
