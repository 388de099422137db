import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { batches, type Dataset } from './data.js';
import { readsAreFree } from './engine/contract.js';
import { FrugalError } from './errors.js';
import { groups } from './groups.js';
import type { Link } from './link.js';
import type { TrainOptions } from './run.js';
import type { Batch } from './step.js';
import { type Stepper, stepper, type StepperOptions } from './stepper.js';
import { COSTLY, countingReads, useCostlyBackend } from './testing/costly.js';
import { eachGradient, methodOf, toyAverage } from './testing/descriptions.js';
import { expectNoLeak } from './testing/engines.js';
import { meanGradient, twinRanks } from './testing/ranks.js';
import { toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import { train } from './train.js';

const data = toyImages(96);
const model = (): tf.LayersModel => toyModel(3, { batchNorm: true, dropout: 0.3 });
/** Reads a number from the engine in every step. */
const reading: Link = eachGradient('reading', (g) => tf.mul(g, Math.min(1, Math.abs(g.dataSync()[0]!))));

/** The batches of an epoch as copies, which outlive their generator. */
function copies(of: Dataset, batchSize = 16): [Batch, ...Batch[]] {
  const kept: Batch[] = [];
  for (const { xs, ys } of batches(of, { batchSize })) kept.push({ xs: xs.clone(), ys: ys.clone() });
  return kept as [Batch, ...Batch[]];
}

/** A batch with a NaN in its inputs. */
const poisoned = ({ xs, ys }: Batch): Batch => ({
  xs: tf.tidy(() => tf.where(tf.less(tf.range(0, xs.size).reshape(xs.shape), 1), tf.fill(xs.shape, Number.NaN), xs)),
  ys,
});

interface Stepped {
  readonly losses: number[];
  readonly weights: number[];
  /** Reads of each step. */
  readonly sync: number[];
  readonly awaited: number[];
}

async function steps(options: Partial<StepperOptions> = {}, of: tf.LayersModel = model()): Promise<Stepped> {
  const { step, dispose, prepare } = stepper(of, { optimizer: toySgd(), seed: 2, ...options });
  await prepare();
  const result: Stepped = { losses: [], weights: [], sync: [], awaited: [] };
  await countingReads(async (reads) => {
    for (const batch of copies(data)) {
      const before = { ...reads };
      result.losses.push((await step(batch)).loss);
      result.sync.push(reads.sync - before.sync);
      result.awaited.push(reads.awaited - before.awaited);
      tf.dispose([batch.xs, batch.ys]);
    }
  });
  dispose();
  result.weights.push(...weightsOf(of));
  return result;
}

/** Synchronous and awaited reads up to each step of a run, and what it came to. */
async function trained(options: Partial<TrainOptions> = {}) {
  const own = model();
  const seen: { sync: number; awaited: number }[] = [];
  const report = await countingReads((reads) =>
    train(own, data, {
      optimizer: toySgd(),
      epochs: 2,
      batchSize: 4,
      seed: 2,
      progress: ({ kind }) => {
        if (kind === 'step') seen.push({ ...reads });
      },
      ...options,
    }),
  );
  return { weights: weightsOf(own), losses: report.epochs.map(({ loss }) => loss), seen };
}

afterAll(async () => {
  await tf.setBackend('cpu');
  tf.removeBackend(COSTLY);
});

describe('on an engine whose reads cost something', () => {
  beforeEach(useCostlyBackend);

  const variants: readonly (readonly [string, Partial<StepperOptions>])[] = [
    ['exact', {}],
    ['a batch in parts', { accumulate: 3 }],
    [
      'groups',
      {
        optimizer: groups([{ match: ({ value }) => value.rank > 1, optimizer: toySgd() }, { optimizer: toySgd(0.01) }]),
      },
    ],
    ['links around the update', { optimizer: [eachGradient('half', (g) => tf.mul(g, 0.5)), toySgd(), toyAverage()] }],
    [
      'a rule, an observer and a probe',
      {
        methods: [
          methodOf({
            rule: {
              name: 'r',
              bias: 'unbiased',
              weightGrad: ({ exact }, x, dy, shape) => exact.weightGrad(x, dy, shape),
            },
            observer: { name: 'o', onBackward: ({ scope }, x) => scope.keep('x', x) },
            probes: [{ name: 'p', before: (step) => step.pass().loss().dispose() }],
          }),
        ],
      },
    ],
  ];

  it.each(variants)('a step of a stepper reads nothing before it is under way: %s', async (_name, options) => {
    expect(readsAreFree(tf.getBackend())).toBe(false);
    const { sync, awaited } = await steps(options);
    expect(sync).toEqual([0, 0, 0, 0, 0, 0]);
    // Loss and counts, in one read.
    expect(awaited).toEqual([1, 1, 1, 1, 1, 1]);
  });

  it.each(variants)('a step of train reads nothing, and many share an awaited read: %s', async (_name, options) => {
    const { seen } = await trained(options);
    expect(seen).toHaveLength(48);
    expect(seen.every(({ sync }) => sync === 0)).toBe(true);
    // The first step of an epoch, every 16 after it, the rest at its end.
    expect(seen.at(-1)!.awaited).toBeLessThanOrEqual(2 * 3);
  });

  it('control: a link that reads is seen', async () => {
    const { sync } = await steps({ optimizer: [reading, toySgd()] });
    expect(Math.min(...sync)).toBeGreaterThan(0);
    const { seen } = await trained({ optimizer: [reading, toySgd()] });
    expect(seen.at(-1)!.sync).toBeGreaterThan(48);
  });

  it('control: cpu reads for nothing, and so it does', async () => {
    await tf.setBackend('cpu');
    expect(readsAreFree('cpu')).toBe(true);
    expect(Math.min(...(await steps()).sync)).toBeGreaterThan(0);
  });

  it.each(variants)('losses and weights have the bits of cpu: %s', async (_name, options) => {
    const [stepped, run] = [await steps(options), await trained(options)];
    await tf.setBackend('cpu');
    const [other, whole] = [await steps(options), await trained(options)];
    expect(stepped.losses).toEqual(other.losses);
    expect(stepped.weights).toEqual(other.weights);
    expect(run.losses).toEqual(whole.losses);
    expect(run.weights).toEqual(whole.weights);
    expect(other.losses[5]).toBeLessThan(other.losses[0]!);
  });

  it('leaves no tensor behind', async () => {
    const own = model();
    const [batch] = copies(data);
    await expectNoLeak(async () => {
      const { step, dispose } = stepper(own, { optimizer: [toySgd(), toyAverage()], accumulate: 2 });
      await step(batch);
      const before = tf.memory().numTensors;
      for (let i = 0; i < 4; i++) await step(batch);
      expect(tf.memory().numTensors).toBe(before);
      dispose();
    });
    const options = { optimizer: toySgd(), epochs: 1, batchSize: 4, progress: false as const, validation: data };
    await train(own, data, options);
    await expectNoLeak(() => train(own, data, options));
  });
});

/** Weights and state of a run, by name. */
function snapshot({ attachment, chain }: Stepper, own: tf.LayersModel): Record<string, number[]> {
  const { params, statistics } = attachment.context;
  const weights = [...params, ...statistics].map(
    ({ name, value }) => [name, [...value.dataSync()]] as [string, number[]],
  );
  const state = [...chain.state()].map(
    ([name, kept]) => [name, [...(kept instanceof Float64Array ? kept : kept.dataSync())]] as [string, number[]],
  );
  expect(weights.length).toBe(own.weights.length);
  return Object.fromEntries([...weights, ...state]);
}

/** A link that exchanges, and so takes the awaited way. */
const together = (): Partial<StepperOptions> => ({
  optimizer: [meanGradient(() => 0.5), toySgd()],
  communicator: twinRanks(2),
  division: 'data',
});

describe('a step whose loss is not finite, where nobody reads it in time', () => {
  beforeEach(useCostlyBackend);

  it.each([
    ['alone', {}],
    ['with an average of the weights', { optimizer: [toySgd(), toyAverage()] }],
    ['in parts', { accumulate: 3 }],
    ['with other ranks', together()],
  ] as const)(
    'moves no weight and no state of the optimizer, and the next step goes on: %s',
    async (_name, options) => {
      const run = async (withNaN: boolean): Promise<number[]> => {
        const own = toyModel(3);
        const made = stepper(own, { optimizer: toySgd(), seed: 2, ...(options as Partial<StepperOptions>) });
        const [first, second] = copies(data, 12) as unknown as [Batch, Batch];
        await made.step(first);
        const [before, moved] = [snapshot(made, own), weightsOf(own)];
        if (withNaN) {
          const bad = poisoned(second);
          await made.step(bad).catch(() => undefined);
          expect(snapshot(made, own)).toEqual(before);
        }
        await made.step(second);
        const weights = weightsOf(own);
        expect(weights).not.toEqual(moved);
        made.dispose();
        return weights;
      };
      const plain = await run(false);
      const poisonedRun = await run(true);
      expect(poisonedRun).toEqual(plain);
    },
  );

  it('moves no statistic of batch normalisation', async () => {
    const own = toyModel(3, { batchNorm: true });
    const made = stepper(own, { optimizer: toySgd(), seed: 2 });
    const [first] = copies(data, 12);
    await made.step(first);
    const before = snapshot(made, own);
    await made.step(poisoned(first)).catch(() => undefined);
    expect(snapshot(made, own)).toEqual(before);
    made.dispose();
  });

  it('is an error of a stepper, as on any engine', async () => {
    for (const backend of [COSTLY, 'cpu']) {
      await tf.setBackend(backend);
      const made = stepper(toyModel(3), { optimizer: toySgd() });
      const [first] = copies(data, 12);
      await made.step(first);
      const bad = made.step(poisoned(first));
      await expect(bad, backend).rejects.toSatisfy((error) => FrugalError.is(error, 'NON_FINITE'));
      await expect(bad).rejects.toThrow(/the loss is NaN at step 1/);
      made.dispose();
    }
  });

  it.each([0, 3, 17, 23])('ends train with NON_FINITE, which names step %i, and the weights before it', async (at) => {
    // Batches of 4 in the shuffled order of the run: the poison is in the batch of that step.
    const order: number[] = [];
    const spied = toyModel(3);
    const floats: Dataset = {
      ...data,
      inputs: Float32Array.from({ length: 96 * 64 }, (_, i) => Math.floor(i / 64)),
      normalize: { mean: [0], std: [1] },
    };
    const observer = {
      name: 'order',
      onBackward: ({ site }: { site: { name: string } }, x: tf.Tensor) => {
        if (site.name === 'conv') order.push(x.dataSync()[0]!);
      },
    };
    const options = { epochs: 1, batchSize: 4, seed: 2, progress: false as const };
    await train(spied, floats, { ...options, optimizer: toySgd(0), methods: [methodOf({ observer })] });
    expect(order).toHaveLength(24);
    const inputs = Float32Array.from(data.inputs);
    inputs[order[at]! * 64] = Number.NaN;
    const own = toyModel(3);
    const bad = train(own, { ...data, inputs }, { ...options, optimizer: toySgd() });
    await expect(bad).rejects.toSatisfy((error) => FrugalError.is(error, 'NON_FINITE'));
    await expect(bad).rejects.toThrow(`exact: the loss is NaN at step ${at}; all weights are still finite.`);
    expect(weightsOf(own).every(Number.isFinite)).toBe(true);
    // Nothing of the run stays, whatever it had not read yet.
    await expectNoLeak(() =>
      train(own, { ...data, inputs }, { ...options, optimizer: toySgd() }).catch(() => undefined),
    );
  });

  it('leaves no tensor behind when a link throws in it', async () => {
    const broken = eachGradient('broken', () => {
      throw new Error('from a link');
    });
    const [batch] = copies(data, 12);
    for (const options of [
      { optimizer: [broken, toySgd()] },
      { ...together(), optimizer: [meanGradient(() => 0.5), broken, toySgd()] },
    ]) {
      const made = stepper(toyModel(3), options);
      await made.prepare();
      await expectNoLeak(() => expect(made.step(batch)).rejects.toThrow('from a link'));
      made.dispose();
    }
  });
});
