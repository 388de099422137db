import * as cluster from '@frugal/cluster';
import * as core from '@frugal/core';
import { attach, type Link, meanSquaredError, type Method, stepper, useEngine } from '@frugal/core';
import { runRanks, toyModel, weightsOf } from '@frugal/core/testing';
import * as feedback from '@frugal/feedback';
import * as optim from '@frugal/optim';
import * as sampling from '@frugal/sampling';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';

/**
 * A description belongs to nobody: used in two runs at once, under two `fit`s, on all ranks of a cluster, it gives the bits of
 * descriptions of their own. The test walks the indices of the packages; a factory without an entry is called without arguments.
 */
interface Entry {
  readonly make: () => Link | Method;
  /** Does it make the whole step? */
  readonly whole?: boolean;
  /** Does it make passes of its own, which `fit` cannot host? */
  readonly probes?: boolean;
}

const images = (count: number): tf.Tensor => tf.randomNormal([count, 8, 8, 1], 0, 1, 'float32', 5);
const labels = (count: number): tf.Tensor =>
  tf.tidy(() => tf.oneHot(tf.range(0, count, 1, 'int32').mod(tf.scalar(3, 'int32')), 3).toFloat());

const kfacOptions = { damping: 0.1, factorEvery: 1, inverseEvery: 2 } as const;
const keep = { keep: 0.5, minK: 2 } as const;
const members = { members: 6, observationNoise: 0.5, log: () => undefined } as const;
const onRing = { learningRate: 0.05, topology: cluster.ring() };
const sgd = () => optim.sgd({ learningRate: 0.05, momentum: 0.9 });
const matrices = ({ value }: core.Param): boolean => value.rank > 1;

/** Factories that need arguments, or that are not hosted everywhere. */
const ENTRIES: Record<string, Entry> = {
  groups: {
    make: () => core.groups([{ match: matrices, optimizer: [optim.lars(), sgd()] }, { optimizer: optim.adam() }]),
  },
  sgd: { make: sgd },
  clipByGlobalNorm: { make: () => optim.clipByGlobalNorm({ norm: 0.5 }) },
  ema: { make: () => optim.ema({ decay: 0.5 }) },
  swa: { make: () => optim.swa({ every: 1, start: 0 }) },
  lookahead: { make: () => optim.lookahead({ every: 2 }) },
  kfac: { make: () => optim.kfac(kfacOptions) },
  ekfac: { make: () => optim.ekfac(kfacOptions) },
  enkf: { make: () => optim.enkf(members), whole: true },
  esmda: { make: () => optim.esmda(members), whole: true },
  topK: { make: () => sampling.topK(keep) },
  columnRow: { make: () => sampling.columnRow(keep) },
  bernoulli: { make: () => sampling.bernoulli(keep) },
  uniform: { make: () => sampling.uniform(keep) },
  winnerTakeAll: { make: () => sampling.winnerTakeAll({ ...keep, mode: 'backward' }) },
  alignmentMeter: { make: () => feedback.alignmentMeter({ xs: images(6), ys: labels(6) }, { every: 2 }), probes: true },
  slowMo: { make: () => cluster.slowMo({ ...onRing, every: 2 }) },
  ...Object.fromEntries(
    (['dsgd', 'dmsgd', 'daDmsgd', 'awcDmsgd', 'qgDmsgd', 'd2', 'decentlam', 'momentumTracking', 'edm'] as const).map(
      (name) => [name, { make: () => cluster[name](onRing) }],
    ),
  ),
};

/** Functions of the packages that make neither a link nor a method. `core` has many, and one factory. */
const OTHERS: Record<string, readonly string[]> = {
  optim: [
    'analyse',
    'assign',
    'friedman',
    'inflationCoefficients',
    'levenbergMarquardt',
    'mexicanHat',
    'sine',
    ...[
      'constant',
      'cosine',
      'demon',
      'exponential',
      'linear',
      'oneCycle',
      'oneCycleMomentum',
      'rex',
      'stepDecay',
      'warmup',
    ],
  ],
  sampling: [],
  feedback: ['alignment'],
  cluster: [
    'alone',
    'environmentRank',
    'localCluster',
    'mpi',
    'simulate',
    'fromGraph',
    'fullyConnected',
    'isDoublyStochastic',
    'isSymmetric',
    'lazy',
    'mesh',
    'mixingRate',
    'neighbours',
    'onePeerExponential',
    'onePeerHypercube',
    'ring',
    'smallestEigenvalue',
    'spectralGap',
    'star',
    'staticExponential',
    'symmetricExponential',
  ],
};

/** Functions of an index that are no factories of links or methods. */
const isOther = (of: string, name: string): boolean => (OTHERS[of] ?? []).includes(name);

/** The factories that an index has; of core only `groups`. */
function factoriesOf(of: string, index: object): [string, Entry][] {
  const names = Object.entries(index).flatMap(([name, value]) =>
    typeof value === 'function' && /^[a-z]/.test(name) && !isOther(of, name) ? [name] : [],
  );
  return (of === 'core' ? ['groups'] : names).map((name) => {
    const factory = (index as Record<string, () => Link | Method>)[name] as () => Link | Method;
    return [name, ENTRIES[name] ?? { make: () => factory() }];
  });
}

const exchanges = (made: Link | Method): boolean =>
  'kind' in made && (made.kind === 'exchange' || (made.kind === 'update' && made.exchanges === true));

/** The run of one subject. */
function optionsOf({ whole }: Entry, made: Link | Method, before: readonly Link[] = []) {
  if (whole) return { optimizer: [], methods: [made as Method], loss: meanSquaredError };
  if (!('kind' in made)) return { optimizer: [...before, sgd()], methods: [made] };
  if (made.kind === 'update') return { optimizer: [...before, made], methods: [] };
  return { optimizer: made.kind === 'weights' ? [...before, sgd(), made] : [...before, made, sgd()], methods: [] };
}

const STEPS = 4; // as many as esmda has coefficients
let batch: { xs: tf.Tensor; ys: tf.Tensor };

function open(entry: Entry, made: Link | Method, seed: number, communicator?: core.Communicator) {
  const itself = exchanges(made) || entry.whole === true;
  const model = toyModel(seed);
  const options = {
    ...optionsOf(entry, made, communicator && !itself ? [cluster.allReduce()] : []),
    seed,
    totalSteps: STEPS,
    ...((communicator || exchanges(made)) && { communicator: communicator ?? cluster.alone() }),
  };
  return { model, run: stepper(model, options) };
}

/** Two runs that take turns; their weights at the end. */
async function inTurns(entry: Entry, made: readonly [Link | Method, Link | Method]): Promise<number[][]> {
  const runs = made.map((description, i) => open(entry, description, i + 1));
  for (let step = 0; step < STEPS; step++) for (const { run } of runs) await run.step(batch);
  return runs.map(({ model, run }) => {
    run.finish();
    run.dispose();
    const weights = weightsOf(model);
    model.dispose();
    return weights;
  });
}

/** Two models under Keras' training loop, whose batches take turns. */
async function underFit(entry: Entry, made: readonly [Link | Method, Link | Method]): Promise<number[][]> {
  const runs = [];
  for (const [i, description] of made.entries()) {
    const model = toyModel(i + 1);
    const { optimizer: links, methods } = optionsOf(entry, description);
    const attached = attach(model, ...(methods as Method[]));
    const optimizer = attached.optimizer(links as Link[], { seed: i, totalSteps: STEPS });
    await optimizer.prepare();
    model.compile({ optimizer, loss: 'categoricalCrossentropy' });
    runs.push({ model, attached, optimizer });
  }
  for (let step = 0; step < STEPS; step++) for (const { model } of runs) await model.trainOnBatch(batch.xs, batch.ys);
  return runs.map(({ model, attached, optimizer }) => {
    optimizer.finish();
    attached.detach();
    optimizer.dispose();
    return weightsOf(model);
  });
}

/** Two ranks in this process. */
async function onRanks(entry: Entry, make: (rank: number) => Link | Method): Promise<number[][]> {
  return runRanks(2, async (communicator) => {
    const { model, run } = open(entry, make(communicator.rank), 1, communicator);
    for (let step = 0; step < STEPS; step++) await run.step(batch);
    run.finish();
    run.dispose();
    return weightsOf(model);
  });
}

beforeAll(async () => {
  await useEngine(undefined, { log: () => undefined });
  batch = { xs: images(12), ys: labels(12) };
});

describe.each(Object.entries({ core, optim, sampling, feedback, cluster }))('descriptions of %s', (of, index) => {
  const factories = factoriesOf(of, index);

  it('make links and methods; what does not is listed', () => {
    for (const name of OTHERS[of] ?? []) expect(index, name).toHaveProperty(name);
    for (const [name, { make }] of factories) expect(make(), name).toHaveProperty('open');
    expect(factories.length).toBeGreaterThan(0);
  });

  describe.each(factories)('%s', (_factory, entry) => {
    it('serves two runs that take turns', async () => {
      const one = entry.make();
      const shared = await inTurns(entry, [one, one]);
      expect(shared).toEqual(await inTurns(entry, [entry.make(), entry.make()]));
      expect(shared[0]!.every(Number.isFinite)).toBe(true);
      // The control: the runs are not alike.
      expect(shared[0]).not.toEqual(shared[1]);
    });

    const hosted = !entry.whole && !entry.probes && !exchanges(entry.make());
    it(hosted ? 'serves two fits' : 'is refused by fit, which cannot host it', async () => {
      const one = entry.make();
      const shared = underFit(entry, [one, one]);
      if (hosted) expect(await shared).toEqual(await underFit(entry, [entry.make(), entry.make()]));
      else await expect(shared).rejects.toThrow(expect.objectContaining({ code: 'CONFIG' }));
    });

    it('serves all ranks', async () => {
      const one = entry.make();
      expect(await onRanks(entry, () => one)).toEqual(await onRanks(entry, () => entry.make()));
    });
  });
});
