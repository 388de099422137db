/** What an engine has done since its counters were reset. */
export interface EngineCounters {
  /** Kernels that ran in plain JavaScript because the engine has none of its own, by name, with the number of calls. */
  readonly fallbacks: Readonly<Record<string, number>>;
  /** Buffers that had to be allocated. */
  readonly newBuffers: number;
  /** Their bytes. */
  readonly newBytes: number;
  /** Buffers that were used again. */
  readonly reusedBuffers: number;
}

/** The engines, from fastest to most available; `auto` takes the first that works. */
export type EngineName = 'tensorflow' | 'native' | 'portable' | 'cpu';

/** An engine that was tried before the one in use, and why it was not taken. */
export interface Rejected {
  /** What was tried: an engine, or the package behind it. */
  readonly name: string;
  /** Why it was not taken. */
  readonly reason: string;
  /** What would make it work. */
  readonly remedy?: string;
}

/** The engine in use. */
export interface Engine {
  /** Its name. */
  readonly name: EngineName;
  /** The TensorFlow.js backend behind it. */
  readonly backend: string;
  /** One line: what it is, with threads and instruction set. */
  readonly detail: string;
  /** What was tried before it. */
  readonly rejected: readonly Rejected[];
  /** What it has done. */
  counters(): EngineCounters;
  /** Sets the counters to zero. */
  resetCounters(): void;
}

/** Counters of an engine that has none. */
export const noCounters = {
  counters: (): EngineCounters => ({ fallbacks: {}, newBuffers: 0, newBytes: 0, reusedBuffers: 0 }),
  resetCounters: (): void => undefined,
};
