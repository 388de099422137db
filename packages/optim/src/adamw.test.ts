import { describeEngines, relativeError } from '@frugal/core/testing';
import { expect, test } from 'vitest';
import { adam } from './adam.js';
import { type AdamWOptions, adamw } from './adamw.js';
import { paramOf, scopeAt, trace } from './testing/bench.js';
import { golden } from './testing/golden.js';
import { openLink } from './testing/open.js';

await describeEngines('adamw', () => {
  test('by hand', () => {
    const options: AdamWOptions = { learningRate: 0.1, epsilon: 0.25, weightDecay: 0.5 };
    const run = { start: [2], gradient: () => [1], steps: 2 };
    // Rank 2: w ← 0.95 w − 0.08, from 2: 1.82, 1.649. Rank 1: 1.92, 1.84.
    expect(relativeError(trace(adamw(options), { ...run, shape: [1, 1] }).flat(), [1.82, 1.649])).toBeLessThan(1e-6);
    expect(relativeError(trace(adamw(options), run).flat(), [1.92, 1.84])).toBeLessThan(1e-6);
  });

  test("PyTorch's AdamW, which decays every weight, over ten steps", () => {
    const { start, gradients, weights } = golden();
    const link = adamw({ learningRate: 0.01, weightDecay: 0.1, decay: () => true });
    const rows = trace(link, { start, gradient: (step) => gradients[step] ?? [], steps: 10 });
    expect(relativeError(rows.flat(), (weights['adamw'] ?? []).flat())).toBeLessThan(1e-6);
  });

  test('limit: without decay it is Adam, bit by bit', () => {
    const run = { start: [1, -2], gradient: (step: number) => [Math.sin(step), 0.5], steps: 5, shape: [1, 2] };
    expect(trace(adamw({ weightDecay: 0 }), run)).toEqual(trace(adam(), run));
  });
});

test('its state has its own name', () => {
  const link = openLink(adamw(), [paramOf([1], [1], 'a')]);
  expect([...link.state!().keys()]).toEqual(['adamw/m/a', 'adamw/v/a', 'adamw/corrections']);
  expect(link.hyperparameters?.(scopeAt(0))['weightDecay']).toBe(0.01);
  link.dispose?.();
});

test('refuses bad options', () => {
  expect(() => adamw({ weight_decay: 0.1 } as AdamWOptions)).toThrow(/adamw: .* received "weight_decay"/);
  expect(() => adamw({ weightDecay: -1 })).toThrow(/adamw: expected weightDecay/);
  expect(() => adamw({ decay: 'kernel' as unknown as () => boolean })).toThrow(/adamw: expected decay/);
});
