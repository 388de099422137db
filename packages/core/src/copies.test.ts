import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { readInto, tensorOf } from './copies.js';
import type { Engine } from './engine/engine.js';
import { activeEngine } from './engine/ladder.js';
import { describeEngines, expectNoLeak } from './testing/index.js';

/** Longer than what the native engine copies for whoever reads it. */
const LONG = 10_000;
const values = Float32Array.from({ length: LONG }, (_, i) => Math.sin(i));

await describeEngines('copies of tensors', (engine) => {
  test('there and back: the same bits, the special ones too, and nothing shared', async () => {
    await expectNoLeak(async () => {
      for (const given of [values, Float32Array.of(0, -0, 1e-45, Infinity, Number.NaN, -3.4e38), new Float32Array(0)]) {
        const source = given.slice();
        const tensor = tensorOf(source, [given.length, 1]);
        expect(tensor).toMatchObject({ shape: [given.length, 1], dtype: 'float32' });
        source.fill(9);
        const read = new Float32Array(given.length + 2);
        await readInto(read.subarray(1, given.length + 1), tensor);
        expect(read).toEqual(Float32Array.of(0, ...given, 0));
        read.fill(9);
        expect(tensor.dataSync()).toEqual(given);
        tensor.dispose();
      }
    });
  });

  test('a tensor of a tidy ends with it', () => {
    const before = tf.memory().numTensors;
    tf.tidy(() => void tensorOf(values, [LONG]));
    expect(tf.memory().numTensors).toBe(before);
  });

  test.runIf(engine === 'native')('buffers stay in use, where data() takes each of them away', async () => {
    const { counters, resetCounters } = activeEngine() as Engine;
    const newBuffers = async (read: (tensor: tf.Tensor) => Promise<unknown>): Promise<number> => {
      const variable = tf.variable(tensorOf(values, [LONG]));
      for (let step = 0; step < 6; step++) {
        if (step === 2) resetCounters();
        await read(variable);
        tf.tidy(() => variable.assign(tf.sub(tensorOf(values, [LONG]), variable)));
      }
      variable.dispose();
      return counters().newBuffers;
    };
    expect(await newBuffers((tensor) => readInto(new Float32Array(LONG), tensor))).toBe(0);
    expect(await newBuffers((tensor) => tensor.data())).toBeGreaterThan(0);
  });

  test('an array of another length is refused', async () => {
    const tensor = tf.zeros([3]);
    await expect(readInto(new Float32Array(2), tensor)).rejects.toThrow(/3 numbers.*received 2/);
    tensor.dispose();
  });
});
