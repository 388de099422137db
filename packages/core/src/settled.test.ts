import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { attach } from './attach.js';
import { batches } from './data.js';
import { evaluate } from './evaluate.js';
import { groups } from './groups.js';
import type { Link, WeightsLink } from './link.js';
import type { TrainOptions } from './run.js';
import { stepper } from './stepper.js';
import { toyAverage } from './testing/descriptions.js';
import { expectNoLeak, relativeError } from './testing/engines.js';
import { meanGradient, runRanks } from './testing/ranks.js';
import { trainFor } from './testing/stopping.js';
import { firstBatch, toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import { train } from './train.js';

const data = toyImages(48);
const test = toyImages(30, 8);
const fresh = (): tf.LayersModel => toyModel(1, { batchNorm: true, dropout: 0.2 });

/** Weights after every step, in the order of `getWeights`, as training left them. */
function recorder(): { readonly link: WeightsLink; readonly steps: number[][] } {
  const steps: number[][] = [];
  const link: WeightsLink = {
    kind: 'weights',
    name: 'recorder',
    open: ({ model }) => ({ moved: () => void steps.push(weightsOf(model)) }),
  };
  return { link, steps };
}

/** Means of columns, in float64. */
const meanOf = (rows: readonly number[][]): number[] =>
  rows[0]!.map((_, i) => rows.reduce((sum, row) => sum + row[i]!, 0) / rows.length);

/** A model with these weights. */
function modelOf(values: readonly number[]): tf.LayersModel {
  const model = fresh();
  let at = 0;
  tf.tidy(() =>
    model.setWeights(
      model.getWeights().map((w) => {
        const own = tf.tensor(values.slice(at, at + w.size), w.shape);
        at += w.size;
        return own;
      }),
    ),
  );
  return model;
}

const run = async (links: Link[], more: Partial<TrainOptions> = {}) => {
  const model = fresh();
  const options = { epochs: 3, batchSize: 12, seed: 4, progress: false as const, validation: test };
  const report = await train(model, data, { optimizer: [toySgd(), ...links], ...options, ...more });
  return { model, report };
};

describe('an average of weights behind the update', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('is what validation evaluates and what the model ends with; training goes on from the weights themselves', async () => {
    const [alone, beside] = [recorder(), recorder()];
    const raw = await run([alone.link]);
    const averaged = await run([toyAverage(), beside.link]);
    // To the bit, through three validations.
    expect(beside.steps).toHaveLength(12);
    expect(beside.steps).toEqual(alone.steps);
    expect(averaged.report.epochs.map(({ loss }) => loss)).toEqual(raw.report.epochs.map(({ loss }) => loss));
    for (const [epoch, end] of [4, 8, 12].entries()) {
      const expected = evaluate(modelOf(meanOf(alone.steps.slice(0, end))), test);
      const { validation } = averaged.report.epochs[epoch]!;
      expect(validation!.loss).toBeCloseTo(expected.loss, 4);
      expect(validation!.accuracy).toBe(expected.accuracy);
      // The controls: the weights themselves are another model, and are what a run without it evaluates.
      const own = evaluate(modelOf(alone.steps[end - 1]!), test).loss;
      expect(Math.abs(own - expected.loss)).toBeGreaterThan(0.001);
      expect(raw.report.epochs[epoch]!.validation!.loss).toBe(own);
    }
    expect(relativeError(weightsOf(averaged.model), meanOf(alone.steps))).toBeLessThan(1e-6);
    expect(weightsOf(raw.model)).toEqual(alone.steps.at(-1));
    expect(evaluate(averaged.model, test).loss).toBe(averaged.report.epochs[2]!.validation!.loss);
  });

  it('that stands last is the one that counts; inside a group it is of its weights', async () => {
    const { steps, link } = recorder();
    const [first, second] = [toyAverage(), toyAverage()];
    /** As toyAverage, but three times it. */
    const triple: WeightsLink = {
      ...second,
      name: 'triple',
      open(context) {
        const opened = second.open(context);
        return {
          ...opened,
          settled: () => new Map([...opened.settled!()].map(([name, mean]) => [name, tf.tidy(() => tf.mul(mean, 3))])),
        };
      },
    };
    const { model } = await run([first, triple, link]);
    expect(
      relativeError(
        weightsOf(model),
        meanOf(steps).map((v) => 3 * v),
      ),
    ).toBeLessThan(1e-6);
    const inside = recorder();
    const grouped = fresh();
    const withoutStatistics = (average: WeightsLink): WeightsLink => ({
      ...average,
      open: (context) => average.open({ ...context, statistics: [] }),
    });
    const optimizer = groups([
      { match: ({ name }) => name.startsWith('head'), optimizer: [toySgd(), withoutStatistics(toyAverage())] },
      { optimizer: [toySgd(), inside.link] },
    ]);
    await train(grouped, data, { optimizer, epochs: 1, batchSize: 12, progress: false });
    const [mean, last] = [meanOf(inside.steps), inside.steps.at(-1)!];
    const ended = weightsOf(grouped);
    const head = 24 * 3 + 3;
    // The head is trainable and last of the trainable weights; the statistics of batch normalisation stand behind it.
    const names = grouped.weights.map(({ originalName }) => originalName);
    expect(names.slice(-4)).toEqual(['head/kernel', 'head/bias', 'norm/moving_mean', 'norm/moving_variance']);
    const statistics = 8;
    const [from, to] = [ended.length - statistics - head, ended.length - statistics];
    expect(relativeError(ended.slice(from, to), mean.slice(from, to))).toBeLessThan(1e-6);
    expect(ended.slice(0, from)).toEqual(last.slice(0, from));
    expect(ended.slice(to)).toEqual(last.slice(to));
    expect(ended.slice(from, to)).not.toEqual(last.slice(from, to));
  });

  it('is given to the model of a stepper, and of fit, by finish()', async () => {
    const { steps, link } = recorder();
    const model = fresh();
    const { step, finish, dispose } = stepper(model, { optimizer: [toySgd(), toyAverage(), link] });
    for (const batch of batches(data, { batchSize: 12 })) await step(batch);
    expect(weightsOf(model)).toEqual(steps.at(-1));
    finish();
    expect(relativeError(weightsOf(model), meanOf(steps))).toBeLessThan(1e-6);
    dispose();
    expect(relativeError(weightsOf(model), meanOf(steps))).toBeLessThan(1e-6);

    const fitted = recorder();
    const other = fresh();
    const attachment = attach(other);
    const optimizer = attachment.optimizer([toySgd(), toyAverage(), fitted.link]);
    other.compile({ optimizer, loss: 'categoricalCrossentropy' });
    const { xs, ys } = firstBatch(data, 48);
    await other.fit(xs, ys, { epochs: 1, batchSize: 12, verbose: 0 });
    expect(fitted.steps).toHaveLength(4);
    expect(weightsOf(other)).toEqual(fitted.steps.at(-1));
    optimizer.finish();
    expect(relativeError(weightsOf(other), meanOf(fitted.steps))).toBeLessThan(1e-6);
    optimizer.dispose();
    attachment.detach();
    tf.dispose([xs, ys]);
  });

  it('goes on after a stop with its bits, and is there again when a finished run is asked again', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'frugal-settled-'));
    const checkpoint = { folder };
    const whole = await run([toyAverage()]);
    const options = { epochs: 3, batchSize: 12, seed: 4, validation: test, checkpoint };
    await trainFor(6, fresh(), data, { ...options, optimizer: [toySgd(), toyAverage()] });
    for (const again of [1, 2]) {
      const { model, report } = await run([toyAverage()], { checkpoint });
      expect(weightsOf(model), `run ${again}`).toEqual(weightsOf(whole.model));
      expect(report.epochs.map(({ validation }) => validation)).toEqual(
        whole.report.epochs.map(({ validation }) => validation),
      );
    }
    await rm(folder, { recursive: true });
  });

  it('is of all ranks where they make one step', async () => {
    const options = { epochs: 2, batchSize: 12, seed: 4, validation: test, progress: false as const };
    const behind = (...before: Link[]): Link[] => [...before, toySgd(), toyAverage()];
    const alone = toyModel(1);
    const { epochs } = await train(alone, data, { ...options, optimizer: behind() });
    const ranks = await runRanks(2, async (communicator) => {
      const model = toyModel(1);
      const report = await train(model, data, { ...options, optimizer: behind(meanGradient()), communicator });
      return { model, report };
    });
    for (const { model, report } of ranks) {
      // Another order of summation in float32.
      expect(relativeError(weightsOf(model), weightsOf(alone))).toBeLessThan(1e-5);
      report.epochs.forEach(({ validation }, i) =>
        expect(validation!.loss).toBeCloseTo(epochs[i]!.validation!.loss, 5),
      );
    }
  });

  it('leaves no tensor behind', async () => {
    const model = fresh();
    const options = { epochs: 1, batchSize: 12, progress: false as const, validation: test };
    const once = () => train(model, data, { ...options, optimizer: [toySgd(), toyAverage()] });
    await once();
    await expectNoLeak(once);
  });

  it('gives the weights themselves back when the epoch ends in an error', async () => {
    const { steps, link } = recorder();
    const model = fresh();
    const stop = new Error('from progress');
    const progress: TrainOptions['progress'] = ({ kind }) => {
      if (kind === 'epoch') throw stop;
    };
    const options = { epochs: 1, batchSize: 12, seed: 4, validation: test };
    const failing = train(model, data, { ...options, optimizer: [toySgd(), toyAverage(), link], progress });
    await expect(failing).rejects.toBe(stop);
    expect(weightsOf(model)).toEqual(steps.at(-1));
  });
});
