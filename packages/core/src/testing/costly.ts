import * as tf from '@tensorflow/tfjs';

/** The name of a backend that no engine has: nothing is known of it, so every read of a number counts as costly. */
export const COSTLY = 'counting';

/** Makes a copy of the cpu backend active under that name. Its numbers are those of cpu, to the bit. */
export async function useCostlyBackend(): Promise<void> {
  if (tf.engine().findBackendFactory(COSTLY) === null || tf.engine().findBackendFactory(COSTLY) === undefined) {
    const factory = tf.engine().findBackendFactory('cpu') as () => tf.KernelBackend;
    tf.registerBackend(COSTLY, () => Object.assign(factory(), { firstUse: false }));
    tf.copyRegisteredKernels('cpu', COSTLY);
  }
  await tf.setBackend(COSTLY);
}

/** How often somebody has read from the engine. */
export interface Reads {
  /** Reads that make everybody wait. */
  sync: number;
  /** Reads that are awaited. */
  awaited: number;
}

/** Runs `body`, which may look at the reads so far. */
export async function countingReads<R>(body: (reads: Reads) => Promise<R>): Promise<R> {
  const engine = tf.engine();
  const { readSync, read } = engine;
  const reads: Reads = { sync: 0, awaited: 0 };
  engine.readSync = (...given) => {
    reads.sync++;
    return readSync.apply(engine, given);
  };
  engine.read = (...given) => {
    reads.awaited++;
    return read.apply(engine, given);
  };
  try {
    return await body(reads);
  } finally {
    Object.assign(engine, { readSync, read });
  }
}
