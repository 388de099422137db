import { describeEngines, expectNoLeak, relativeError } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { type AdamOptions, adam } from './adam.js';
import { demon } from './schedules/demon.js';
import { linear } from './schedules/linear.js';
import { paramOf, scopeAt, stepBy, trace } from './testing/bench.js';
import { golden } from './testing/golden.js';
import { openLink } from './testing/open.js';

const gradient = (step: number): number[] => [1, -0.01, Math.sin(step), 3 * Math.cos(2 * step)];
const START = [0.5, -1.5, 2, 1];

/** Adam in float64 on plain arrays, with Π written as a product. */
function reference(steps: number, beta1: (t: number) => number, { gain = 'ema' as 'ema' | 'sum' } = {}): number[][] {
  const [w, m, v] = [[...START], [0, 0, 0, 0], [0, 0, 0, 0]];
  let [p1, p2] = [1, 1];
  return Array.from({ length: steps }, (_, t) => {
    const b1 = beta1(t);
    p1 *= b1;
    p2 *= 0.999;
    gradient(t).forEach((g, i) => {
      m[i] = b1 * (m[i] as number) + (gain === 'sum' ? g : (1 - b1) * g);
      v[i] = 0.999 * (v[i] as number) + 0.001 * g * g;
      const hat = gain === 'sum' ? m[i] : m[i] / (1 - p1);
      w[i] = (w[i] as number) - (0.01 * hat) / (Math.sqrt(v[i] / (1 - p2)) + 1e-8);
    });
    return [...w];
  });
}

await describeEngines('adam', () => {
  test('by hand', () => {
    // Gradient 1: m̂ = v̂ = 1 at every step, so each moves by −η/(1 + ε), here −0.1/1.25 = −0.08.
    const ones = trace(adam({ learningRate: 0.1, epsilon: 0.25 }), { start: [0], gradient: () => [1], steps: 3 });
    expect(relativeError(ones.flat(), [-0.08, -0.16, -0.24])).toBeLessThan(1e-6);
    // β1 = β2 = ½, ε = 1, g = 2, 0: m = 1, ½; v = 2, 1; m̂ = 2, 2/3; v̂ = 4, 4/3; w = −2/3, −2/3 − (2/3)/(1 + √(4/3)).
    const halves: AdamOptions = { learningRate: 1, beta1: 0.5, beta2: 0.5, epsilon: 1 };
    const rows = trace(adam(halves), { start: [0], gradient: (step) => [step === 0 ? 2 : 0], steps: 2 });
    expect(relativeError(rows.flat(), [-2 / 3, -2 / 3 - 2 / 3 / (1 + Math.sqrt(4 / 3))])).toBeLessThan(1e-6);
    // The sum form: m = 2, 1, not corrected: w = −2/3, −2/3 − 1/(1 + √(4/3)).
    const sums = trace(adam({ ...halves, form: 'sum' }), {
      start: [0],
      gradient: (s) => [s === 0 ? 2 : 0],
      steps: 2,
    });
    expect(relativeError(sums.flat(), [-2 / 3, -2 / 3 - 1 / (1 + Math.sqrt(4 / 3))])).toBeLessThan(1e-6);
  });

  test('20 steps against float64, with constant and with scheduled β1, in both forms', () => {
    const decayed = (t: number): number => demon()({ step: t, total: 20 });
    const cases: [AdamOptions, number[][]][] = [
      [{}, reference(20, () => 0.9)],
      [{ beta1: demon() }, reference(20, decayed)],
      [{ beta1: demon(), form: 'sum' }, reference(20, decayed, { gain: 'sum' })],
    ];
    for (const [options, expected] of cases) {
      const rows = trace(adam({ learningRate: 0.01, ...options }), { start: START, gradient, steps: 20 });
      // float32: 2^-24 per rounding of the weights, largest weight 2.
      expect(relativeError(rows.flat(), expected.flat())).toBeLessThan(1e-6);
    }
  });

  test("PyTorch's Adam over ten steps", () => {
    const { start, gradients, weights } = golden();
    const cases: Record<string, AdamOptions> = {
      adam: { learningRate: 0.01 },
      adamBetas: { learningRate: 0.01, beta1: 0.8, beta2: 0.95, epsilon: 1e-3 },
    };
    for (const [name, options] of Object.entries(cases)) {
      const rows = trace(adam(options), { start, gradient: (step) => gradients[step] ?? [], steps: 10 });
      expect(relativeError(rows.flat(), (weights[name] ?? []).flat()), name).toBeLessThan(1e-6);
    }
  });

  test('no tensors are left over 10 steps, and none after dispose', async () => {
    const params = [paramOf([1, 2, 3, 4], [2, 2], 'kernel'), paramOf([1, 2], [2], 'bias')];
    const before = tf.memory().numTensors;
    const link = openLink(adam({ learningRate: linear({ initial: 0.1 }) }), params);
    const updates = new Map(params.map(({ name, value }) => [name, tf.onesLike(value)] as const));
    await expectNoLeak(() => {
      for (let step = 0; step < 10; step++) stepBy(link, updates, scopeAt(step, 10));
    });
    link.dispose?.();
    tf.dispose([...updates.values()]);
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose(params.map(({ value }) => value));
  });
});

describe('state', () => {
  beforeAll(() => tf.setBackend('cpu'));

  test('two moments per weight and the corrections, by name', () => {
    const link = openLink(adam(), [paramOf([1], [1], 'a'), paramOf([1], [1], 'b')]);
    expect([...link.state!().keys()]).toEqual(['adam/m/a', 'adam/m/b', 'adam/v/a', 'adam/v/b', 'adam/corrections']);
    // Numbers of the host: nothing has to come back from the engine.
    expect(link.state!().get('adam/corrections')).toEqual(new Float64Array(2));
    link.dispose?.();
    expect([...link.state!().keys()]).toEqual(['adam/corrections']);
  });

  test('a state that is restored continues the run bit by bit', () => {
    const description = adam({ learningRate: 0.01, beta1: demon() });
    const [param, copy] = [paramOf(START), paramOf(START)];
    const [link, second] = [openLink(description, [param]), openLink(description, [copy])];
    const run = (by: typeof link, from: number, to: number): void => {
      for (let s = from; s < to; s++)
        tf.tidy(() => stepBy(by, new Map([['w', tf.tensor1d(gradient(s))]]), scopeAt(s, 12)));
    };
    run(link, 0, 6);
    copy.value.assign(param.value.clone());
    for (const [name, kept] of second.state!()) {
      const from = link.state!().get(name)!;
      if (kept instanceof Float64Array) kept.set(from as Float64Array);
      else kept.assign((from as tf.Variable).clone());
    }
    run(link, 6, 12);
    run(second, 6, 12);
    expect([...copy.value.dataSync()]).toEqual([...param.value.dataSync()]);
  });
});

test('says its values at a step', () => {
  expect(openLink(adam(), []).hyperparameters?.(scopeAt(0))).toEqual({ learningRate: 1e-3, beta1: 0.9, beta2: 0.999 });
  expect(openLink(adam({ beta1: demon() }), []).hyperparameters?.(scopeAt(10, 10))['beta1']).toBe(0);
});

test('refuses bad options', () => {
  expect(() => adam({ beta_1: 0.9 } as AdamOptions)).toThrow(/adam: .* received "beta_1"/);
  expect(() => adam({ weightDecay: 0.1 } as AdamOptions)).toThrow(/received "weightDecay"/);
  expect(() => adam({ beta1: 1 })).toThrow(/beta1 in \[0, 1\)/);
  expect(() => adam({ beta2: -0.1 })).toThrow(/beta2/);
  expect(() => adam({ epsilon: 0 })).toThrow(/epsilon in \(0, ∞\)/);
  expect(() => adam({ form: 'mean' as 'ema' })).toThrow(/form to be one of 'ema', 'sum'/);
  expect(() => adam({ learningRate: 'lr' })).toThrow(/adam: .*"lr"/);
  const link = openLink(adam({ beta1: () => Number.NaN }), []);
  expect(() => link.apply(new Map(), scopeAt(3))).toThrow(/beta1 at step 3 .* NaN/);
});
