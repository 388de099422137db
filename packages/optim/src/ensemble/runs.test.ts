import {
  attach,
  type Batch,
  batches,
  type Communicator,
  type Dataset,
  type Link,
  meanSquaredError,
  slice,
  stepper,
  train,
  type WeightsLink,
} from '@frugal/core';
import {
  describeEngines,
  expectNoLeak,
  meanGradient,
  relativeError,
  runRanks,
  trainFor,
  weightsOf,
} from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { clipByGlobalNorm } from '../clip.js';
import { sgd } from '../sgd.js';
import { net } from '../testing/curves.js';
import { ema } from '../weights/ema.js';
import { mexicanHat, sine } from './data.js';
import { enkf } from './enkf.js';
import { esmda } from './esmda.js';
import type { EnsembleMethod, EnsembleReport } from './options.js';

type Models = readonly [tf.LayersModel, tf.LayersModel];

const quiet = { observationNoise: 0.1, members: 7, log: (): void => undefined };
/** With a past and masks: all that an analysis takes from the one before. */
const filter = (): EnsembleMethod => enkf({ ...quiet, momentum: 0.5, dropout: 0.2 });
const smoother = (): EnsembleMethod => esmda({ ...quiet, coefficients: [2, 2] });
const [data, others] = [slice(sine().train, 0, 24), slice(mexicanHat().train, 30, 54)];
const RUN = { epochs: 2, batchSize: 6, seed: 3, progress: false as const };
const loss = meanSquaredError;

afterEach(() => tf.disposeVariables());

/** Numbers of a report: what was done, and the predictions of the ensemble. */
function numbersOf({ predict, ...done }: EnsembleReport) {
  const predicted = tf.tidy(() => {
    const { mean, standardDeviation } = predict(tf.tensor2d([0, 1, 2], [3, 1]));
    return [...mean.dataSync(), ...standardDeviation.dataSync()];
  });
  return { ...done, predicted };
}

/** Batches of a data set, again and again. */
function* endless(set: Dataset, batchSize: number): Generator<Batch, never> {
  for (;;) yield* batches(set, { batchSize });
}

/** Steps and batch size of a run of single steps. */
type Pace = readonly [steps: number, batchSize: number];

/** A run of single steps on a data set of its own. */
function openOn(method: EnsembleMethod, model: tf.LayersModel, set: Dataset, [totalSteps, batchSize]: Pace) {
  const run = stepper(model, { methods: [method], optimizer: [], loss, seed: 3, totalSteps });
  const source = endless(set, batchSize);
  return {
    run,
    step: () => run.step(source.next().value),
    /** Ends the run; what came of it. */
    end() {
      const state = [...run.attachment.opened.state()].map(([name, value]) => [name, [...valuesOf(value)]]);
      const report = numbersOf(run.of(method));
      run.dispose();
      source.return(undefined as never);
      return { weights: weightsOf(model), state, report };
    },
  };
}

const valuesOf = (value: tf.Variable | Float64Array) => (value instanceof tf.Variable ? value.dataSync() : value);

/** Two runs whose steps take turns: the second begins later, and goes on when the first has ended. */
async function turns([first, second]: readonly [EnsembleMethod, EnsembleMethod], pace: Pace, models: Models) {
  const [a, b] = [openOn(first, models[0], data, pace), openOn(second, models[1], others, pace)];
  await a.step();
  for (let step = 1; step < pace[0]; step++) {
    await b.step();
    await a.step();
  }
  const ended = a.end();
  await b.step();
  return [ended, b.end()];
}

const two = (): Models => [net(1), net(2)];

/** One run on each of two ranks in this process, which divide the members. */
function onRanks(describeOne: () => EnsembleMethod, batchSize: number, models: Models = [net(1), net(1)]) {
  return runRanks(2, async (communicator: Communicator) => {
    const [model, method] = [models[communicator.rank as 0 | 1], describeOne()];
    const report = await train(model, data, { methods: [method], optimizer: [], communicator, ...RUN, batchSize });
    return { weights: weightsOf(model), report: numbersOf(report.of(method)) };
  });
}

await describeEngines('one description', () => {
  test.each([
    ['enkf', filter, [4, 6]],
    ['esmda', smoother, [2, 24]],
  ] as const)('of %s in two runs whose steps take turns is two of them, to the bit', async (_name, make, pace) => {
    const expected = await turns([make(), make()], pace, two());
    const method = make();
    expect(await turns([method, method], pace, two())).toEqual(expected);
    // Used before, it is as new.
    expect(await turns([method, method], pace, two())).toEqual(expected);
    // The control: the runs have something that could be mixed up.
    expect(expected[0]?.state).not.toEqual(expected[1]?.state);
  });

  test.each([
    ['enkf', filter, 5],
    ['esmda', smoother, 24],
  ] as const)('of %s on two ranks is two of them, to the bit', async (_name, make, batchSize) => {
    const method = make();
    const ranks = await onRanks(() => method, batchSize);
    expect(ranks).toEqual(await onRanks(make, batchSize));
    // Three and four of the seven members, twice through the data.
    expect(ranks.map(({ report }) => report.forwardPassesHere)).toEqual([3 * 48, 4 * 48]);
    expect(ranks[0]?.weights).toEqual(ranks[1]?.weights);
  });

  test('leaves nothing behind after its runs, on ranks or not', async () => {
    const [method, models, same] = [filter(), two(), [net(1), net(1)] as const];
    await expectNoLeak(() => turns([method, method], [4, 6], models));
    await expectNoLeak(() => onRanks(() => method, 5, same));
  });
});

test('ES-MDA compares the data set with the first one of the run', async () => {
  const method = smoother();
  const [a, b] = [openOn(method, net(1), data, [2, 24]), openOn(method, net(2), others, [2, 24])];
  await a.step();
  await b.step();
  for (const foreign of batches(data, { batchSize: 24 }))
    await expect(b.run.step(foreign)).rejects.toThrow(/step 1 has other examples than the first/);
  await a.step();
  await b.step();
  expect([a, b].map(({ run }) => run.of(method).analyses)).toEqual([2, 2]);
  a.end();
  b.end();
});

describe('the ensemble of a run', () => {
  test('is the state of the method, without a link; the model has its mean', async () => {
    const [method, model] = [filter(), net(1)];
    const { run, step, end } = openOn(method, model, data, [4, 6]);
    expect(method.links).toBeUndefined();
    expect(run.chain.links).toEqual([]);
    expect(run.chain.state().size).toBe(0);
    await step();
    const state = run.attachment.opened.state();
    const names = ['hidden/kernel', 'hidden/bias', 'out/kernel', 'out/bias'];
    expect([...state.keys()]).toEqual(['members', 'previous'].flatMap((of) => names.map((n) => `enkf/${of}/${n}`)));
    for (const { name, value } of run.attachment.params) {
      const members = state.get(`enkf/members/${name}`) as tf.Variable;
      expect(members.shape).toEqual([7, ...value.shape]);
      expect(relativeError(value.dataSync(), members.mean(0).dataSync())).toBeLessThan(1e-6);
    }
    const stored = (of: string): number[] => names.flatMap((name) => [...valuesOf(state.get(`enkf/${of}/${name}`)!)]);
    const first = stored('members');
    await step();
    expect(stored('previous')).toEqual(first);
    expect(stored('members')).not.toEqual(first);
    end();
  });

  test('is not there before the first step; a report keeps that of its time, also after the run', async () => {
    const method = filter();
    const { run, step, end } = openOn(method, net(1), data, [4, 6]);
    const early = run.of(method);
    expect([early.analyses, early.forward]).toEqual([0, undefined]);
    const xs = tf.ones([1, 1]);
    expect(() => early.predict(xs)).toThrow(expect.objectContaining({ code: 'CONFIG' }) as Error);
    expect(() => early.predict(xs)).toThrow(/no ensemble yet/);
    await step();
    const report = run.of(method);
    const first = numbersOf(report);
    expect([first.analyses, first.forward, first.spread.length]).toEqual([1, 'batched', 2]);
    await step();
    expect(numbersOf(run.of(method)).predicted).not.toEqual(first.predicted);
    end();
    expect(numbersOf(report)).toEqual(first);
  });
});

/** Writes the weights down whenever the link is called. */
const recorder = (into: number[][], model: tf.LayersModel): WeightsLink => ({
  kind: 'weights',
  name: 'recorder',
  open: () => ({ moved: () => void into.push(weightsOf(model)) }),
});

/** A run with an average behind it, or without; what was seen after each step. */
async function averaged(average: Link | undefined, communicator?: Communicator) {
  const [seen, model, method]: [number[][], tf.LayersModel, EnsembleMethod] = [[], net(1), filter()];
  const optimizer = [recorder(seen, model), ...(average ? [average] : [])];
  const run = { ...RUN, validation: others, ...(communicator && { communicator }) };
  const report = await train(model, data, { methods: [method], optimizer, ...run });
  return { seen, report, weights: weightsOf(model), ensemble: numbersOf(report.of(method)) };
}

describe('beside the whole step', () => {
  test('an average of the weights follows each step once, and the ensemble does not see it', async () => {
    const average = ema({ decay: 0.75 });
    const [plain, found] = [await averaged(undefined), await averaged(average)];
    expect(found.seen).toHaveLength(8);
    expect(found.seen).toEqual(plain.seen);
    expect(plain.seen.at(-1)).toEqual(plain.weights);
    expect(found.ensemble).toEqual(plain.ensemble);
    expect(found.report.of(average)).toEqual({ count: 8 });
    const mean = found.seen.reduce((sum, weights) => sum.map((w, i) => 0.75 * w + 0.25 * (weights[i] as number)));
    expect(relativeError(found.weights, mean)).toBeLessThan(1e-6);
    expect(relativeError(plain.weights, mean)).toBeGreaterThan(1e-3);
    const losses = [found, plain].map(({ report }) => report.epochs[1]?.validation?.loss);
    expect(losses[0]).not.toBe(losses[1]);
    for (const rank of await runRanks(2, (communicator) => averaged(average, communicator)))
      expect([rank.seen, rank.weights]).toEqual([found.seen, found.weights]);
  });

  test('an average goes on from a checkpoint with the ensemble', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'frugal-ensemble-average-'));
    const run = { ...RUN, methods: [filter()], optimizer: ema({ decay: 0.75 }) };
    await trainFor(5, net(1), data, { ...run, checkpoint: { folder } });
    const resumed = net(1);
    await train(resumed, data, { ...run, checkpoint: { folder } });
    expect(weightsOf(resumed)).toEqual((await averaged(run.optimizer)).weights);
    await rm(folder, { recursive: true });
  });

  test.each<[string, readonly Link[]]>([
    ['sgd', [sgd({ learningRate: 0.1 })]],
    ['clipByGlobalNorm', [clipByGlobalNorm({ norm: 1 })]],
    ['meanGradient', [meanGradient()]],
    ['sgd', [sgd({ learningRate: 0.1 }), ema()]],
  ])('%s would do nothing, and is refused', async (name, optimizer) => {
    const [model, methods] = [net(1), [filter()]];
    const refusal = {
      code: 'CONFIG',
      message: expect.stringContaining(`optimizer: [] beside it but received ${name}`) as string,
    };
    await expectNoLeak(async () => {
      await expect(train(model, data, { methods, optimizer, ...RUN })).rejects.toMatchObject(refusal);
      expect(() => stepper(model, { methods, optimizer, loss })).toThrow(expect.objectContaining(refusal) as Error);
      // The model is free.
      await train(model, data, { methods, optimizer: [], ...RUN });
    });
  });

  test('fit cannot host it, and a model of several inputs has no ensemble; neither leaves anything behind', async () => {
    const model = net(1);
    const [one, other] = [tf.input({ shape: [2] }), tf.input({ shape: [2] })];
    const outputs = tf.layers.concatenate().apply([one, other]) as tf.SymbolicTensor;
    const wide = tf.model({
      inputs: [one, other],
      outputs: tf.layers.dense({ units: 1 }).apply(outputs) as tf.SymbolicTensor,
    });
    await expectNoLeak(() => {
      const attached = attach(model, filter());
      expect(() => attached.optimizer(sgd({ learningRate: 0.1 }))).toThrow(/whole training step.*Use train\(/);
      attached.detach();
      expect(() => attach(wide, filter())).toThrow(/one input and one output but .* has 2 and 1/);
      attach(wide).detach();
    });
  });
});
