import { readFileSync } from 'node:fs';
import { stepper } from '@frugal/core';
import { describeEngines, relativeError } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { kfac, type KfacOptions } from './kfac/index.js';
import { sgd } from './sgd.js';
import { spy } from './testing/kfac-runs.js';

type Named = Readonly<Record<string, number[]>>;

/** What `kfac-golden.py` has written. */
interface Golden {
  readonly shape: [number, number, number, number];
  readonly classes: number;
  /** One array per batch. */
  readonly inputs: readonly number[][];
  readonly targets: readonly number[][];
  readonly start: Named;
  readonly losses: readonly number[];
  /** ν of every step. */
  readonly clip: readonly number[];
  /** Steps whose ν·P is in `preconditioned`. */
  readonly recorded: readonly number[];
  readonly preconditioned: readonly Named[];
  readonly weights: Named;
}

const golden = JSON.parse(readFileSync(new URL('./golden/kfac-golden.json', import.meta.url), 'utf8')) as Golden;
/** Measured: 6e-6 at most, on the engines of float32 against float64. */
const TOLERANCE = 5e-5;
const STEPS = golden.losses.length;
const RATE = '0.05 * (1 - step / 20)^2';

function makeModel(): tf.Sequential {
  const model = tf.sequential({
    layers: [
      tf.layers.conv2d({
        name: 'same',
        inputShape: golden.shape.slice(1),
        filters: 3,
        kernelSize: 3,
        padding: 'same',
        activation: 'tanh',
      }),
      tf.layers.conv2d({ name: 'strided', filters: 4, kernelSize: 3, strides: 2, activation: 'relu' }),
      tf.layers.flatten(),
      tf.layers.dense({ name: 'head', units: golden.classes, activation: 'softmax' }),
    ],
  });
  tf.tidy(() => {
    const names = Object.keys(golden.start);
    model.setWeights(
      model.getWeights().map((w, i) => tf.tensor(golden.start[names[i] as string] as number[], w.shape)),
    );
  });
  return model;
}

async function run(change: Partial<KfacOptions> = {}) {
  const model = makeModel();
  const method = kfac({
    damping: 0.01,
    decay: 0.95,
    factorEvery: 2,
    inverseEvery: 4,
    klClip: 1e-3,
    ...change,
  });
  const seen: Record<string, Float32Array>[] = [];
  // Stands between the two, and remembers what passes in the steps that PyTorch recorded.
  const between = spy((gradients, step) => {
    if (golden.recorded.includes(step))
      seen.push(Object.fromEntries([...gradients].map(([name, g]) => [name, g.dataSync() as Float32Array])));
  });
  const optimizer = [between, sgd({ learningRate: RATE, momentum: 0.9 })];
  const { step, dispose, attachment } = stepper(model, { methods: [method], optimizer, totalSteps: STEPS });
  const losses: number[] = [];
  for (let s = 0; s < STEPS; s++) {
    const k = s % golden.inputs.length;
    const xs = tf.tensor4d(golden.inputs[k] as number[], golden.shape);
    const ys = tf.tidy(() =>
      tf.cast(tf.oneHot(tf.tensor1d(golden.targets[k] as number[], 'int32'), golden.classes), 'float32'),
    );
    losses.push((await step({ xs, ys })).loss);
    tf.dispose([xs, ys]);
  }
  const weights = Object.fromEntries(attachment.params.map(({ name, value }) => [name, [...value.dataSync()]]));
  dispose();
  model.dispose();
  return { losses, weights, preconditioned: seen };
}

/** Largest relative error of any of the named arrays. */
function worst(actual: Readonly<Record<string, ArrayLike<number>>>, expected: Named): number {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  return Math.max(...Object.entries(expected).map(([name, e]) => relativeError(actual[name] as number[], e)));
}

const worstLoss = (losses: readonly number[]): number =>
  Math.max(...losses.map((loss, s) => Math.abs(loss / (golden.losses[s] as number) - 1)));

await describeEngines("PyTorch's K-FAC", () => {
  test('losses, clipped P and weights of 20 steps', async () => {
    // Clipped at first, and later not.
    expect([(golden.clip[0] as number) < 0.5, golden.clip.at(-1)]).toEqual([true, 1]);
    const { losses, weights, preconditioned } = await run();
    expect(worstLoss(losses)).toBeLessThan(TOLERANCE);
    expect(worst(weights, golden.weights)).toBeLessThan(TOLERANCE);
    expect(preconditioned).toHaveLength(golden.recorded.length);
    for (const [i, expected] of golden.preconditioned.entries())
      expect(worst(preconditioned[i] ?? {}, expected)).toBeLessThan(TOLERANCE);
  });
});

describe("control: PyTorch's K-FAC", () => {
  beforeAll(() => tf.setBackend('cpu'));

  test.each<[string, Partial<KfacOptions>]>([
    ['damping', { damping: 0.012 }],
    ['decay', { decay: 0.7 }],
    ['interval', { inverseEvery: 2 }],
    ['clip', { klClip: 1.1e-3 }],
    ['form', { form: 'inverse' }],
    ['reduction', { lossReduction: 'sum' }],
  ])('not with another %s', async (_name, change) => {
    const { losses, weights } = await run(change);
    expect(worst(weights, golden.weights)).toBeGreaterThan(1e-3);
    expect(worstLoss(losses)).toBeGreaterThan(1e-3);
  });
});
