import { readsAreFree, registerKernels, useEngine } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

const NAME = 'far';

/** What was read from the engine. */
export interface Reads {
  /** How often, until now, somebody has asked the engine for values, and waited or not. */
  count(): number;
  /** Stops counting. */
  stop(): void;
}

/**
 * Makes active what sampling takes for an engine whose reads are not free: the cpu engine by a name that no contract knows.
 * Methods choose on the device there.
 */
export async function useFarEngine(): Promise<void> {
  await useEngine('cpu', { log: () => undefined });
  if (tf.findBackendFactory(NAME) === null) {
    const cpu = tf.findBackendFactory('cpu');
    // Not its first use: then it would recommend the engine of TensorFlow.
    tf.registerBackend(NAME, () => Object.assign(cpu() as tf.KernelBackend, { firstUse: false }));
    tf.copyRegisteredKernels('cpu', NAME);
  }
  await tf.setBackend(NAME);
  registerKernels(NAME);
  if (tf.getBackend() !== NAME || readsAreFree(NAME)) throw new Error('The far engine is not far.');
}

/** Counts what is read from the engine. */
export function countReads(): Reads {
  const engine = tf.engine();
  const { readSync, read } = engine;
  let count = 0;
  engine.readSync = (id) => {
    count++;
    return readSync.call(engine, id);
  };
  engine.read = (id) => {
    count++;
    return read.call(engine, id);
  };
  return {
    count: () => count,
    stop: () => Object.assign(engine, { readSync, read }),
  };
}
