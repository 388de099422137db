import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { type EngineName, useEngine } from '../engine/ladder.js';

const ENGINES = (process.env['FRUGAL_TEST_ENGINES']?.split(',') ?? ['cpu', 'portable', 'native']) as EngineName[];

/**
 * Runs the same test body on every engine this machine has. An engine that is missing is not passed over in silence:
 * it appears as a skipped suite whose name says why. `FRUGAL_TEST_ENGINES=cpu,native` selects.
 */
export async function describeEngines(title: string, body: (engine: EngineName) => void): Promise<void> {
  for (const engine of ENGINES) {
    const reason = await useEngine(engine, { log: () => undefined }).then(
      () => undefined,
      (error: unknown) => (error as Error).message.split('\n')[0],
    );
    describe.skipIf(reason !== undefined)(
      `${title} [${engine}${reason === undefined ? '' : ` absent: ${reason}`}]`,
      () => {
        beforeAll(async () => {
          await useEngine(engine, { log: () => undefined });
        });
        body(engine);
        afterAll(() => tf.disposeVariables());
      },
    );
  }
}

/** Runs `body` and asserts that it left as many tensors as it found. */
export async function expectNoLeak<T>(body: () => T | Promise<T>): Promise<T> {
  const before = tf.memory().numTensors;
  const result = await body();
  expect(tf.memory().numTensors - before, 'tensors left behind').toBe(0);
  return result;
}

/** Largest |a − b| over the largest |b|, for arrays of one length. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let worst = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs((actual[i] as number) - (expected[i] as number));
    if (Number.isNaN(difference)) return Number.NaN;
    worst = Math.max(worst, difference);
    scale = Math.max(scale, Math.abs(expected[i] as number));
  }
  return scale === 0 ? worst : worst / scale;
}
