import { attach, type Dataset, FrugalError, type Link, stream, train } from '@frugal/core';
import { describeEngines } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { adam } from './adam.js';
import { adamw } from './adamw.js';
import { clipByGlobalNorm } from './clip.js';
import { cosine } from './schedules/cosine.js';
import { demon } from './schedules/demon.js';
import { oneCycle, oneCycleMomentum } from './schedules/one-cycle.js';
import { warmup } from './schedules/warmup.js';
import { sgd } from './sgd.js';

const EXAMPLES = 96;
const EPOCHS = 4;
const BATCH = 16;
const TOTAL = (EPOCHS * EXAMPLES) / BATCH;

/** Targets y = tanh(x·A): learnable by the model below. */
function makeData(): Dataset {
  const random = stream(7, 'data');
  const inputs = Float32Array.from({ length: EXAMPLES * 4 }, () => random.normal());
  const targets = new Float32Array(EXAMPLES * 2);
  for (let i = 0; i < EXAMPLES; i++) {
    const [a = 0, b = 0, c = 0, d = 0] = inputs.subarray(4 * i, 4 * i + 4);
    targets[2 * i] = Math.tanh(a - b);
    targets[2 * i + 1] = Math.tanh(c + 0.5 * d);
  }
  return { name: 'toy', origin: 'made', length: EXAMPLES, shape: [4], inputs, targets };
}

function makeModel(): tf.Sequential {
  const init = (seed: number): { kernelInitializer: ReturnType<typeof tf.initializers.glorotUniform> } => ({
    kernelInitializer: tf.initializers.glorotUniform({ seed }),
  });
  return tf.sequential({
    layers: [
      tf.layers.dense({ units: 16, activation: 'tanh', inputShape: [4], ...init(1) }),
      tf.layers.dense({ units: 2, ...init(2) }),
    ],
  });
}

const chains: Record<string, () => Link[]> = {
  sgd: () => [sgd({ learningRate: cosine({ initial: 0.2 }), momentum: 0.9, nesterov: true, weightDecay: 1e-4 })],
  'sgd with demon': () => [sgd({ learningRate: 0.05, momentum: demon() })],
  'sgd with one cycle': () => [sgd({ learningRate: oneCycle({ peak: 0.3 }), momentum: oneCycleMomentum() })],
  'clip and adam': () => [clipByGlobalNorm({ norm: 1 }), adam({ learningRate: warmup({ steps: 4, then: 0.02 }) })],
  'adam with demon': () => [adam({ learningRate: 3e-3, beta1: demon(), form: 'sum' })],
  adamw: () => [adamw({ learningRate: '0.03 * (1 - t)' })],
};

await describeEngines('in a model', () => {
  test.each(Object.entries(chains))('%s learns in train', async (_name, make) => {
    const model = makeModel();
    const report = await train(model, makeData(), {
      optimizer: make(),
      epochs: EPOCHS,
      batchSize: BATCH,
      progress: false,
    });
    const [first, last] = [report.epochs[0]?.loss as number, report.epochs.at(-1)?.loss as number];
    expect(report.steps).toBe(TOTAL);
    expect(last).toBeLessThan(0.6 * first);
    expect(Object.keys(report.epochs[0]?.hyperparameters ?? {})).toContain('learningRate');
    model.dispose();
  });

  test.each(Object.entries(chains))('%s learns in fit', async (_name, make) => {
    const model = makeModel();
    const attached = attach(model);
    const optimizer = attached.optimizer(make(), { totalSteps: TOTAL });
    model.compile({ optimizer, loss: 'meanSquaredError' });
    const { inputs, targets } = makeData();
    const [xs, ys] = [
      tf.tensor2d(inputs as Float32Array, [EXAMPLES, 4]),
      tf.tensor2d(targets as Float32Array, [EXAMPLES, 2]),
    ];
    const { history } = await model.fit(xs, ys, { epochs: EPOCHS, batchSize: BATCH, shuffle: false });
    const losses = history['loss'] as number[];
    expect(losses.at(-1) as number).toBeLessThan(0.6 * (losses[0] as number));
    attached.detach();
    optimizer.dispose();
    tf.dispose([xs, ys]);
    model.dispose();
  });

  test('a schedule that needs the length of the run says how to give it to fit', async () => {
    const model = makeModel();
    const attached = attach(model);
    model.compile({
      optimizer: attached.optimizer(sgd({ learningRate: 0.1, momentum: demon() })),
      loss: 'meanSquaredError',
    });
    const [xs, ys] = [tf.zeros([4, 4]), tf.zeros([4, 2])];
    const error: unknown = await model.fit(xs, ys).catch((e: unknown) => e);
    expect(FrugalError.is(error, 'CONFIG')).toBe(true);
    expect((error as Error).message).toMatch(/totalSteps/);
    attached.detach();
    tf.dispose([xs, ys]);
    model.dispose();
  });
});
