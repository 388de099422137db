import { batches, type Batch, groups, type Link, stepper, type StepperOptions } from '@frugal/core';
import {
  countingReads,
  describeEngines,
  expectNoLeak,
  relativeError,
  toyImages,
  toyModel,
  useCostlyBackend,
  weightsOf,
} from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeEach, describe, expect, test } from 'vitest';
import { sgd } from '../sgd.js';
import { backward, denseSolve, secondMoment } from '../testing/kfac-reference.js';
import { layersIn, normals, runSteps, tanhNet } from '../testing/kfac-runs.js';
import { inner, map, plus, type Rows } from '../testing/matrices.js';
import { ekfac, kfac, type KfacMethod, type KfacOptions, type KfacReport, levenbergMarquardt } from './index.js';

const data = toyImages(84);
const settings = { damping: 0.1, factorEvery: 2, inverseEvery: 4 } as const;
const momentum = (): Link => sgd({ learningRate: 0.1, momentum: 0.9 });

/** The batches of an epoch in their order, as copies that outlive their generator. */
function copies(batchSize: number): Batch[] {
  const kept: Batch[] = [];
  for (const { xs, ys } of batches(data, { batchSize })) kept.push({ xs: xs.clone(), ys: ys.clone() });
  return kept;
}

const free = (all: readonly Batch[]): void => tf.dispose(all.flatMap(({ xs, ys }) => [xs, ys]));

await describeEngines('the clip of K-FAC and the rates behind it', () => {
  const batch = { x: normals(1, 12, 4), y: normals(101, 12, 3) };
  const [KAPPA, DAMPING] = [1e-3, 0.5];

  /** What each layer loses in one step from the same weights, and P of it in double precision. */
  async function moved(optimizer: (method: KfacMethod) => Link | Link[]) {
    const model = tanhNet([4, 5, 3]);
    const before = layersIn(model);
    const traces = backward(before, batch, 'meanSquaredError');
    const method = kfac({ factorEvery: 1, inverseEvery: 1, damping: DAMPING, klClip: KAPPA });
    const report = await runSteps(model, method, [batch], { optimizer: optimizer(method) });
    const lost = layersIn(model).map((w, i) => plus(before[i]!, w, -1));
    const p = traces.map(({ a, g, gradient }) =>
      denseSolve(gradient, { a: secondMoment(a), g: secondMoment(g) }, DAMPING),
    );
    const along = traces.map(({ gradient }, i) => inner(gradient, p[i]!));
    model.dispose();
    return { lost, p, along, gradients: traces.map(({ gradient }) => gradient), report };
  }

  const times = (rows: Rows, factor: number): Rows => map(rows, (value) => factor * value);
  const first = ({ name }: { name: string }): boolean => name.startsWith('dense0/');

  test('groups: each layer counts by the rate that moves it', async () => {
    const { lost, p, along } = await moved(() =>
      groups([
        { match: first, optimizer: sgd({ learningRate: 0.7 }) },
        { optimizer: sgd({ learningRate: '0.2 - 0.01 * step' }) },
      ]),
    );
    const nu = Math.sqrt(KAPPA / (0.7 ** 2 * along[0]! + 0.2 ** 2 * along[1]!));
    expect(nu).toBeLessThan(0.5);
    expect(relativeError(lost[0]!.flat(), times(p[0]!, 0.7 * nu).flat())).toBeLessThan(1e-4);
    expect(relativeError(lost[1]!.flat(), times(p[1]!, 0.2 * nu).flat())).toBeLessThan(1e-4);
    // Control: one rate for both is another ν.
    for (const rate of [0.7, 0.2]) {
      const other = Math.sqrt(KAPPA / (rate ** 2 * (along[0]! + along[1]!)));
      expect(Math.abs(other / nu - 1)).toBeGreaterThan(0.1);
    }
  });

  test('in one of the groups: its layers alone, by its rate', async () => {
    const { lost, p, along, gradients, report } = await moved(({ link }) =>
      groups([
        { match: first, optimizer: [link, sgd({ learningRate: 0.7 })] },
        { optimizer: sgd({ learningRate: 0.2 }) },
      ]),
    );
    expect(report.layers.map(({ weight }) => weight)).toEqual(['dense0/kernel']);
    const nu = Math.sqrt(KAPPA / (0.7 ** 2 * along[0]!));
    expect(nu).toBeLessThan(0.5);
    expect(relativeError(lost[0]!.flat(), times(p[0]!, 0.7 * nu).flat())).toBeLessThan(1e-4);
    expect(relativeError(lost[1]!.flat(), times(gradients[1]!, 0.2).flat())).toBeLessThan(1e-5);
  });
});

const withoutTimes = (report: KfacReport): Partial<KfacReport> => {
  const { milliseconds, ...rest } = report;
  expect(milliseconds.decompose).toBeGreaterThan(0);
  return rest;
};

const VARIANTS: readonly (readonly [string, () => KfacMethod])[] = [
  ['kfac', () => kfac(settings)],
  ['inverse form, overlap', () => kfac({ ...settings, form: 'inverse', overlap: true })],
  ['sampled', () => kfac({ ...settings, fisher: 'sampled' })],
  ['levenbergMarquardt', () => kfac({ ...settings, damping: levenbergMarquardt({ every: 2 }) })],
  ['ekfac', () => ekfac(settings)],
];

await describeEngines('one description of K-FAC', () => {
  /** Two runs whose steps take turns; the weights and the reports of both. */
  async function interleaved(methods: readonly [KfacMethod, KfacMethod], steps = 3) {
    const models = [toyModel(1), toyModel(2, { dropout: 0.2 })] as const;
    const all = copies(12).slice(0, steps);
    const runs = methods.map((method, i) =>
      stepper(models[i as 0 | 1], { methods: [method], optimizer: momentum(), seed: i }),
    );
    const [a, b] = runs as [(typeof runs)[0], (typeof runs)[0]];
    for (const batch of all) {
      await a.step(batch);
      await b.step(batch);
      await b.step(batch);
    }
    const reports = runs.map((run, i) => withoutTimes(run.of(methods[i as 0 | 1])));
    a.dispose();
    // The end of one run is not that of the other.
    for (const batch of all) await b.step(batch);
    b.dispose();
    free(all);
    return { weights: models.map(weightsOf), reports };
  }

  test.each(VARIANTS)('in two runs whose steps take turns is two, to the bit: %s', async (_name, make) => {
    const one = make();
    const [shared, apart] = [await interleaved([one, one]), await interleaved([make(), make()])];
    expect(shared.weights).toEqual(apart.weights);
    expect(shared.reports).toEqual(apart.reports);
    expect(shared.reports.map(({ updates }) => updates)).toEqual([2, 3]);
  });

  test('control: another γ in one of the runs is seen there, and only there', async () => {
    const [one, other] = [kfac(settings), kfac({ ...settings, damping: 0.3 })];
    const [alike, apart] = [await interleaved([one, one]), await interleaved([one, other])];
    expect(apart.weights[0]).toEqual(alike.weights[0]);
    expect(apart.weights[1]).not.toEqual(alike.weights[1]);
  });

  test.each([
    ...VARIANTS.map((variant) => [...variant, 1] as const),
    ['a batch in parts', () => kfac(settings), 2] as const,
  ])('goes on after a step whose loss is not finite as if it had not been: %s', async (_name, make, accumulate) => {
    const weights = async (poisoned: readonly number[]): Promise<number[]> => {
      const model = toyModel(1);
      const run = stepper(model, { methods: [make()], optimizer: momentum(), accumulate });
      const all = copies(12).slice(0, 4);
      for (const [step, batch] of all.entries()) {
        // Steps 0 and 2 update factors; the weights stay, and so does the number of the step.
        if (poisoned.includes(step)) {
          const ys = tf.mul(batch.ys, Number.NaN);
          await expect(run.step({ ...batch, ys })).rejects.toThrow(/the loss is NaN at step/);
          ys.dispose();
        }
        await run.step(batch);
      }
      run.dispose();
      free(all);
      return weightsOf(model);
    };
    expect(await weights([0, 2, 3])).toEqual(await weights([]));
  });

  test('tells after the end what it did', async () => {
    const method = kfac(settings);
    const run = stepper(toyModel(1), { methods: [method], optimizer: momentum() });
    const [batch, ...rest] = copies(12) as [Batch, ...Batch[]];
    await run.step(batch);
    const report = withoutTimes(run.of(method));
    expect(report).toMatchObject({ updates: 1, decompositions: 1 });
    run.dispose();
    expect(withoutTimes(run.of(method))).toEqual(report);
    free([batch, ...rest]);
  });

  test('leaves nothing, also where its link is in a chain without the method', async () => {
    const model = toyModel(1);
    const [batch, ...rest] = copies(12) as [Batch, ...Batch[]];
    await expectNoLeak(async () => {
      const method = kfac(settings);
      const run = stepper(model, { optimizer: [method.link, momentum()] });
      await expect(run.step(batch)).rejects.toThrow(/expected to have seen x and dY/);
      run.dispose();
    });
    free([batch, ...rest]);
  });
});

describe('on an engine whose reads cost something', () => {
  beforeEach(useCostlyBackend);

  /** Synchronous reads of each step. */
  async function readsOf(method: KfacMethod, options: Partial<StepperOptions> = {}): Promise<number[]> {
    const run = stepper(toyModel(3, { batchNorm: true, dropout: 0.3 }), {
      methods: [method],
      optimizer: momentum(),
      ...options,
    });
    await run.prepare();
    const all = copies(12);
    const seen: number[] = [];
    await countingReads(async (reads) => {
      for (const batch of all) {
        const before = reads.sync;
        await run.step(batch);
        seen.push(reads.sync - before);
      }
    });
    run.dispose();
    free(all);
    return seen;
  }

  const reading = (reads: readonly number[]): number[] => reads.flatMap((count, step) => (count > 0 ? [step] : []));

  test.each([
    ['eigen form', () => kfac(settings), {}],
    ['without a clip', () => kfac({ ...settings, klClip: false }), {}],
    ['inverse form, overlap', () => kfac({ ...settings, form: 'inverse', overlap: true }), {}],
    ['sampled', () => kfac({ ...settings, fisher: 'sampled' }), {}],
    ['ekfac', () => ekfac(settings), {}],
    ['a batch in parts', () => kfac(settings), { accumulate: 3 }],
  ] as const)('it reads factors where it decomposes them, and nothing else: %s', async (_name, make, options) => {
    // Seven steps; factors at 0, 2, 4 and 6, decompositions at 0 and 4.
    expect(reading(await readsOf(make(), options))).toEqual([0, 4]);
  });

  test('control: what decomposes in each step reads in each, and damping that adapts reads losses', async () => {
    const every: KfacOptions = { ...settings, factorEvery: 1, inverseEvery: 1 };
    expect(reading(await readsOf(kfac(every)))).toEqual([0, 1, 2, 3, 4, 5, 6]);
    const adaptive = kfac({ ...settings, damping: levenbergMarquardt({ every: 3 }) });
    expect(reading(await readsOf(adaptive))).toEqual([0, 2, 4, 5]);
  });

  test.each([
    ['kfac', () => kfac(settings)],
    ['ekfac', () => ekfac(settings)],
  ] as const)('a loss that is NaN where it decomposes is told, and leaves nothing: %s', async (_name, make) => {
    const weights = async (poisoned: readonly number[]): Promise<number[]> => {
      const model = toyModel(3);
      const run = stepper(model, { methods: [make()], optimizer: momentum() });
      const all = copies(12);
      for (const [step, batch] of all.entries()) {
        // Steps 0 and 4 decompose, before anybody has read the loss.
        const ys = tf.mul(batch.ys, Number.NaN);
        if (poisoned.includes(step))
          await expect(run.step({ ...batch, ys })).rejects.toThrow(/the loss is NaN at step/);
        ys.dispose();
        await run.step(batch);
      }
      run.dispose();
      free(all);
      return weightsOf(model);
    };
    expect(await weights([0, 4])).toEqual(await weights([]));
  });

  test('its weights have the bits of cpu', async () => {
    const weights = async (): Promise<number[]> => {
      const model = toyModel(3);
      const run = stepper(model, { methods: [kfac(settings)], optimizer: momentum() });
      const all = copies(12);
      for (const batch of all) await run.step(batch);
      run.dispose();
      free(all);
      return weightsOf(model);
    };
    const costly = await weights();
    await tf.setBackend('cpu');
    expect(costly).toEqual(await weights());
  });
});
