import {
  attach,
  clockAt,
  type FrugalError,
  type GradientLink,
  type Link,
  openScope,
  stepper,
  train,
  type WeightsLink,
} from '@frugal/core';
import {
  describeEngines,
  expectNoLeak,
  relativeError,
  toyImages,
  toyModel,
  trainFor,
  weightsOf,
} from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { sgd } from '../sgd.js';
import { ema } from './ema.js';
import { lookahead } from './lookahead.js';
import { swa } from './swa.js';
import { tailAverage } from './tail-average.js';

/** A weight that is what the list says after each step. */
function follow(link: WeightsLink, values: readonly number[], total = values.length): number[][] {
  const value = tf.tidy(() => tf.variable(tf.tensor1d([values[0] as number])));
  const param = { name: 'w', value };
  const context = { params: [param], statistics: [] } as unknown as Parameters<WeightsLink['open']>[0];
  const opened = link.open(context);
  const seen: number[][] = [];
  for (const [step, next] of values.entries()) {
    tf.tidy(() => {
      value.assign(tf.tensor1d([next]));
      opened.moved(openScope(clockAt(step, total), 0));
    });
    const settled = opened.settled?.().get('w')?.dataSync()[0];
    seen.push([value.dataSync()[0] as number, settled ?? Number.NaN]);
  }
  opened.dispose?.();
  value.dispose();
  return seen;
}

const settledOf = (seen: number[][]): (number | undefined)[] => seen.map(([, settled]) => settled);

describe('links that follow the weights', () => {
  it('ema: W̄ ← d·W̄ + (1 − d)·W, from the first weights on', () => {
    // 8; ¾·8 + ¼·4 = 7; ¾·7 + ¼·12 = 8.25
    expect(settledOf(follow(ema({ decay: 0.75 }), [8, 4, 12]))).toEqual([8, 7, 8.25]);
    // A schedule is read in each step: d = 0 takes the weights as they are.
    expect(settledOf(follow(ema({ decay: ({ step }) => (step === 2 ? 0 : 0.5) }), [8, 4, 12]))).toEqual([8, 6, 12]);
  });

  it('swa: the mean of every second weight in the last half', () => {
    const seen = settledOf(follow(swa({ every: 2, start: 0.5 }), [1, 2, 3, 4, 5, 6, 7, 8]));
    // Nothing up to step 4; then 6, and (6 + 8)/2.
    expect(seen).toEqual([Number.NaN, Number.NaN, Number.NaN, Number.NaN, Number.NaN, 6, 6, 7]);
  });

  it('tailAverage: the mean of the tail; from 0 on that of all', () => {
    expect(settledOf(follow(tailAverage(), [1, 2, 3, 6])).slice(2)).toEqual([3, 4.5]);
    const all = settledOf(follow(tailAverage({ start: 0 }), [3, 6, 0]));
    expect(relativeError(all as number[], [3, 4.5, 3])).toBeLessThan(1e-6);
  });

  it('lookahead: every k-th step the slow weights follow, and the weights go on from them', () => {
    const seen = follow(lookahead({ every: 2, alpha: 0.25 }), [1, 5, 9, 13]);
    // φ = 1; after step 2: 1 + ¼·(5 − 1) = 2; after step 4: 2 + ¼·(13 − 2) = 4.75
    expect(seen).toEqual([
      [1, 1],
      [2, 2],
      [9, 2],
      [4.75, 4.75],
    ]);
  });

  it('refuse what is no rate, no share and no count', () => {
    for (const bad of [
      () => ema({ decay: 1 }),
      () => ema({ rate: 0.9 } as never),
      () => swa({ every: 0 }),
      () => swa({} as never),
      () => swa({ every: 5, start: 1 }),
      () => tailAverage({ start: -0.1 }),
      () => lookahead({ every: 1.5 }),
      () => lookahead({ alpha: 0 }),
    ])
      expect(bad).toThrow(expect.objectContaining({ code: 'CONFIG' }) as FrugalError);
  });
});

const data = toyImages(48);
const OPTIONS = { epochs: 2, batchSize: 12, seed: 1, progress: false as const };
const update = sgd({ learningRate: 0.05, momentum: 0.9 });
const model = () => toyModel(3, { batchNorm: true });

/** Writes the weights down after each step: a weights link that changes nothing. */
const recorder = (into: number[][], of: tf.LayersModel): WeightsLink => ({
  kind: 'weights',
  name: 'recorder',
  open: () => ({ moved: () => void into.push(weightsOf(of)) }),
});

await describeEngines('averages in a run', () => {
  it('are what validation sees and the model ends with, while training goes on with the weights', async () => {
    const steps: number[][] = [];
    const own = model();
    const link = tailAverage({ start: 0.5 });
    const report = await train(own, data, {
      ...OPTIONS,
      optimizer: [update, recorder(steps, own), link],
      validation: data,
    });
    const plain: number[][] = [];
    const other = model();
    const without = await train(other, data, {
      ...OPTIONS,
      optimizer: [update, recorder(plain, other)],
      validation: data,
    });
    expect(steps).toEqual(plain);
    const tail = steps.slice(4);
    const mean = tail[0]!.map((_, i) => tail.reduce((sum, weights) => sum + weights[i]!, 0) / tail.length);
    expect(relativeError(weightsOf(own), mean)).toBeLessThan(1e-6);
    expect(weightsOf(other)).toEqual(plain.at(-1));
    expect(report.of(link)).toEqual({ count: 4 });
    expect(report.epochs[0]!.validation).toEqual(without.epochs[0]!.validation);
    expect(report.epochs[1]!.validation).not.toEqual(without.epochs[1]!.validation);
  });

  it.each<[string, () => Link]>([
    ['ema', () => ema({ decay: 0.8 })],
    ['swa', () => swa({ every: 3, start: 0.3 })],
    ['tailAverage', () => tailAverage()],
    ['lookahead', () => lookahead({ every: 3 })],
  ])('%s resumes to the same bits and leaves nothing behind', async (_name, make) => {
    const whole = model();
    await train(whole, data, { ...OPTIONS, optimizer: [update, make()] });
    const folder = mkdtempSync(join(tmpdir(), 'frugal-average-'));
    const checkpoint = { folder, everySteps: 1 };
    await trainFor(5, model(), data, { ...OPTIONS, optimizer: [update, make()], checkpoint });
    const resumed = model();
    await train(resumed, data, { ...OPTIONS, optimizer: [update, make()], checkpoint });
    expect(weightsOf(resumed)).toEqual(weightsOf(whole));
    const fresh = model();
    await expectNoLeak(() => train(fresh, data, { ...OPTIONS, optimizer: [update, make()] }).then(() => undefined));
  });

  it('under fit, are given to the model by finish()', async () => {
    const own = toyModel(3);
    const attached = attach(own);
    const optimizer = attached.optimizer([update, ema({ decay: 0.5 })]);
    own.compile({ optimizer, loss: 'categoricalCrossentropy' });
    const xs = tf.randomNormal([8, 8, 8, 1], 0, 1, 'float32', 1);
    const ys = tf.oneHot(tf.tensor1d([0, 1, 2, 0, 1, 2, 0, 1], 'int32'), 3);
    const seen: number[][] = [];
    for (let i = 0; i < 3; i++) {
      await own.trainOnBatch(xs, ys);
      seen.push(weightsOf(own));
    }
    optimizer.finish();
    const [a, b, c] = seen as [number[], number[], number[]];
    // ½·(½·a + ½·b) + ½·c
    expect(
      relativeError(
        weightsOf(own),
        a.map((_, i) => 0.25 * a[i]! + 0.25 * b[i]! + 0.5 * c[i]!),
      ),
    ).toBeLessThan(1e-6);
    attached.detach();
    optimizer.dispose();
    tf.dispose([xs, ys]);
  });

  it('lookahead with α = 1 is the update alone, to rounding; with α < 1 it is not', async () => {
    const run = async (...after: Link[]): Promise<number[]> => {
      const own = model();
      await train(own, data, { ...OPTIONS, optimizer: [update, ...after] });
      return weightsOf(own);
    };
    const plain = await run();
    expect(relativeError(await run(lookahead({ every: 2, alpha: 1 })), plain)).toBeLessThan(1e-6);
    expect(relativeError(await run(lookahead({ every: 2, alpha: 0.5 })), plain)).toBeGreaterThan(1e-3);
  });
});

it('stand after the update, and keep apart where one stands twice', async () => {
  const pass: GradientLink = { kind: 'gradient', name: 'pass', open: () => ({ transform: (g) => new Map(g) }) };
  const own = model();
  expect(() => stepper(own, { optimizer: [ema(), pass, update] })).toThrow(/order \[pass, sgd, ema\]/);
  const { chain, dispose } = stepper(own, { optimizer: [update, ema({ decay: 0.5 }), ema({ decay: 0.9 })] });
  const names = [...chain.state().keys()];
  expect(names).toContain('ema/count');
  expect(names).toContain('ema/count#2');
  dispose();
});
