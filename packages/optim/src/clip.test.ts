import { describeEngines, expectNoLeak } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { type ClipByGlobalNormOptions, clipByGlobalNorm } from './clip.js';
import { scopeAt } from './testing/bench.js';
import { openLink } from './testing/open.js';

const clip = (norm: number | string, values: Record<string, number[]>, step = 0): Record<string, number[]> =>
  tf.tidy(() => {
    const updates = new Map(Object.entries(values).map(([name, v]) => [name, tf.tensor1d(v)]));
    const clipped = openLink(clipByGlobalNorm({ norm }), []).transform(updates, scopeAt(step, 10));
    return Object.fromEntries([...clipped].map(([name, u]) => [name, [...u.dataSync()]]));
  });

await describeEngines('clipByGlobalNorm', () => {
  test('by hand: (3, 4 | 12) has norm 13', () => {
    const { a, b } = clip(6.5, { a: [3, 4], b: [12] });
    [1.5, 2].forEach((x, i) => expect(a?.[i]).toBeCloseTo(x, 6));
    expect(b?.[0]).toBeCloseTo(6, 5);
  });

  test('short gradients and zeros pass unchanged', () => {
    expect(clip(13.5, { a: [3, 4], b: [12] })).toEqual({ a: [3, 4], b: [12] });
    expect(clip(1, { a: [0, 0] })).toEqual({ a: [0, 0] });
    expect(clip(1, {})).toEqual({});
  });

  test('what is not finite stays so', () => {
    expect(clip(1, { a: [Number.NaN, 1] })['a']?.[0]).toBeNaN();
    expect(clip(1, { a: [Number.POSITIVE_INFINITY, 1] })['a']?.[0]).toBeNaN();
  });

  test('no tensors are left', async () => {
    await expectNoLeak(() => {
      for (let step = 0; step < 10; step++) clip('1 + step', { a: [3, 4], b: [12] }, step);
    });
  });
});

test('refuses bad options, and says its value', () => {
  expect(() => clipByGlobalNorm({ norm: 0 })).toThrow(/norm in \(0, ∞\) but received 0/);
  expect(() => clipByGlobalNorm({ maxNorm: 1 } as unknown as ClipByGlobalNormOptions)).toThrow(/received "maxNorm"/);
  expect(openLink(clipByGlobalNorm({ norm: '1 + step' }), []).hyperparameters?.(scopeAt(3))).toEqual({ clipNorm: 4 });
});
