import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cursor, saveCheckpoint } from './checkpoint.js';
import { loadCheckpoint } from './checkpoint-load.js';
import type { Dataset } from './data.js';
import { FrugalError } from './errors.js';
import { groups } from './groups.js';
import type { Link, UpdateLink } from './link.js';
import type { Method } from './method.js';
import type { State } from './opened.js';
import type { TrainOptions } from './run.js';
import { decodeSafetensors } from './safetensors.js';
import { toyAverage } from './testing/descriptions.js';
import { runRanks } from './testing/ranks.js';
import { trainFor } from './testing/stopping.js';
import { toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import { train } from './train.js';

const data = toyImages(48);
let folder = '';
beforeAll(async () => {
  await tf.setBackend('cpu');
  folder = await mkdtemp(join(tmpdir(), 'frugal-state-'));
});
afterAll(() => rm(folder, { recursive: true }));

const CURSOR: Cursor = {
  step: 1,
  epoch: 0,
  batch: 1,
  seed: 0,
  batchSize: 4,
  examples: 8,
  batches: 2,
  epochs: 1,
  lossSum: 0,
  correct: 0,
  seen: 4,
  seconds: 0,
};

/** Numbers that float32 cannot hold. */
const DOUBLES = Float64Array.of(0.1, 1 / 3, 2 ** 53 - 1, 1 + Number.EPSILON, 5e-324, -0, Number.MAX_VALUE);

/**
 * SGD whose rate falls by a factor that a host number accumulates, in float64: what a count of steps, or a bias correction, is to
 * Adam. In float32 the numbers would be others.
 */
function fallingSgd(): UpdateLink<readonly number[]> {
  return {
    kind: 'update',
    name: 'fallingSgd',
    rateOf: () => () => 0.1,
    open({ params }) {
      const host = Float64Array.of(1, 0);
      return {
        apply(gradients) {
          host[0]! *= 0.999 + 1e-9;
          host[1]!++;
          for (const { name, value } of params) {
            const g = gradients.get(name);
            // A number of which the last bits decide: they must be those of an uninterrupted run.
            if (g) value.assign(tf.sub(value, tf.mul(g, 0.05 + 0.05 * ((host[0]! * 1e12) % 1))));
          }
        },
        state: () => new Map([['fallingSgd/host', host]]),
        report: () => [...host],
      };
    },
  };
}

const run = (model: tf.LayersModel, optimizer: Link | Link[], more: Partial<TrainOptions> = {}) =>
  train(model, data, { optimizer, epochs: 3, batchSize: 12, seed: 4, progress: false, ...more });

/** Trains to step `steps` and goes on in another model with another description. */
async function resumed(name: string, steps: number, optimizer: () => Link | Link[], more: Partial<TrainOptions> = {}) {
  const options = { epochs: 3, batchSize: 12, seed: 4, checkpoint: { folder: join(folder, name) }, ...more };
  await trainFor(steps, toyModel(1, { batchNorm: true, dropout: 0.2 }), data, { ...options, optimizer: optimizer() });
  const model = toyModel(9, { batchNorm: true, dropout: 0.2 });
  const links = optimizer();
  const report = await run(model, links, options);
  return { model, report, links };
}

describe('state on the host', () => {
  it('goes through a checkpoint to the bit, beside state on the engine', async () => {
    const w = tf.variable(tf.tensor1d([1, 2, 3]));
    const host = Float64Array.from(DOUBLES);
    const state: State = new Map<string, tf.Variable | Float64Array>([
      ['w', w],
      ['host', host],
      ['empty', new Float64Array(0)],
    ]);
    const path = await saveCheckpoint({ folder: join(folder, 'doubles') }, state, CURSOR, []);
    const stored = decodeSafetensors(await readFile(join(path, 'state.safetensors')), 'test');
    expect([...stored].map(([name, { shape, values }]) => [name, shape, values.constructor.name])).toEqual([
      ['w', [3], 'Float32Array'],
      ['host', [7], 'Float64Array'],
      ['empty', [0], 'Float64Array'],
    ]);
    host.fill(7);
    w.assign(tf.zeros([3]));
    await loadCheckpoint(join(folder, 'doubles'), state, () => undefined);
    // In place: whoever holds the array goes on with it.
    expect([...host].every((v, i) => Object.is(v, DOUBLES[i]))).toBe(true);
    expect([...w.dataSync()]).toEqual([1, 2, 3]);
    w.dispose();
  });

  it('is refused where it is not finite, or of another length', async () => {
    const of = (...values: number[]): State => new Map([['host', Float64Array.from(values)]]);
    const options = { folder: join(folder, 'wrong') };
    const save = saveCheckpoint(options, of(1, Number.NaN), CURSOR, []);
    await expect(save).rejects.toSatisfy((error) => FrugalError.is(error, 'NON_FINITE'));
    await expect(save).rejects.toThrow('At step 1 host is not finite');
    await saveCheckpoint(options, of(1, 2), CURSOR, []);
    const load = loadCheckpoint(options.folder, of(1, 2, 3), () => undefined);
    await expect(load).rejects.toSatisfy((error) => FrugalError.is(error, 'CHECKPOINT'));
    await expect(load).rejects.toThrow('host has shape [2], this run needs [3]');
  });

  it('is the mean where another number of ranks goes on, in float64', async () => {
    const third = (rank: number): number => (rank + 1) / 3;
    await runRanks(2, (communicator) => {
      const state: State = new Map([['host', Float64Array.of(third(communicator.rank))]]);
      return saveCheckpoint({ folder: join(folder, 'mean') }, state, CURSOR, [], communicator);
    });
    const host = new Float64Array(1);
    await loadCheckpoint(join(folder, 'mean'), new Map([['host', host]]), () => undefined);
    expect(host[0]).toBe((third(0) + third(1)) / 2);
  });
});

describe('a resumed run', () => {
  it.each([1, 4, 7])(
    'of links with host state has the bits of one that was not stopped, after %i steps',
    async (steps) => {
      const whole = toyModel(1, { batchNorm: true, dropout: 0.2 });
      const link = fallingSgd();
      const expected = await run(whole, link);
      const { model, report, links } = await resumed(`falling-${steps}`, steps, fallingSgd);
      expect(weightsOf(model)).toEqual(weightsOf(whole));
      expect(report.of(links as UpdateLink<readonly number[]>)).toEqual(expected.of(link));
      expect(expected.of(link)[1]).toBe(12);
      expect(report.epochs.map(({ loss }) => loss)).toEqual(expected.epochs.map(({ loss }) => loss));
    },
  );

  it('of groups and averages has the bits of one that was not stopped', async () => {
    const links = (): Link[] => [
      groups([
        { match: ({ value }) => value.rank > 1, optimizer: [fallingSgd(), toyAverage()] },
        { optimizer: toySgd(0.01) },
      ]),
      toyAverage(),
    ];
    const whole = toyModel(1, { batchNorm: true, dropout: 0.2 });
    await run(whole, links());
    const { model } = await resumed('groups', 5, links);
    expect(weightsOf(model)).toEqual(weightsOf(whole));
  });

  it('keeps the state of methods', async () => {
    const counting = (): Method<number> => ({
      name: 'counting',
      source: 'test',
      open() {
        const calls = new Float64Array(1);
        return {
          rule: {
            name: 'counting',
            bias: 'biased',
            inputGrad: ({ exact, count }, dy, w, shape) => {
              if (count) calls[0]!++;
              return tf.mul(exact.inputGrad(dy, w, shape), 1 / (1 + 0.01 * calls[0]!));
            },
          },
          state: () => new Map([['counting/calls', calls]]),
          report: () => calls[0]!,
        };
      },
    });
    const whole = toyModel(1, { batchNorm: true, dropout: 0.2 });
    const first = counting();
    const expected = await run(whole, toySgd(), { methods: [first] });
    const checkpoint = { folder: join(folder, 'method') };
    const options = { epochs: 3, batchSize: 12, seed: 4, checkpoint, optimizer: toySgd() };
    await trainFor(5, toyModel(1, { batchNorm: true, dropout: 0.2 }), data, { ...options, methods: [counting()] });
    const model = toyModel(9, { batchNorm: true, dropout: 0.2 });
    const last = counting();
    const report = await run(model, toySgd(), { checkpoint, methods: [last] });
    expect(weightsOf(model)).toEqual(weightsOf(whole));
    expect(report.of(last)).toBe(expected.of(first));
    expect(expected.of(first)).toBe(3 * 12);
  });

  it('accumulates as the run before it did', async () => {
    const whole = toyModel(1, { batchNorm: true, dropout: 0.2 });
    await run(whole, fallingSgd(), { accumulate: 3 });
    const { model } = await resumed('accumulate', 5, fallingSgd, { accumulate: 3 });
    expect(weightsOf(model)).toEqual(weightsOf(whole));
  });
});

describe('a checkpoint of something else', () => {
  /** `hidden` layers of four units before one. */
  const net = (hidden: number): tf.Sequential =>
    tf.sequential({
      layers: Array.from({ length: hidden + 1 }, (_, i) =>
        tf.layers.dense({ units: 4, ...(i === 0 && { inputShape: [4] }) }),
      ),
    });
  const vectors: Dataset = {
    name: 'toy',
    origin: 'made',
    length: 8,
    shape: [4],
    inputs: Float32Array.from({ length: 32 }, (_, i) => Math.sin(i)),
    classes: ['a', 'b', 'c', 'd'],
    targets: Uint8Array.of(0, 1, 2, 3, 0, 1, 2, 3),
  };

  /** Trains with `first`, then goes on in the same folder with `second`. */
  async function goOn(name: string, first: [tf.LayersModel, Link | Link[]], second: [tf.LayersModel, Link | Link[]]) {
    const checkpoint = { folder: join(folder, name) };
    const options = { epochs: 1, progress: false as const, checkpoint };
    await train(first[0], vectors, { ...options, optimizer: first[1] });
    const before = weightsOf(second[0]);
    const error: unknown = await train(second[0], vectors, { ...options, optimizer: second[1] }).then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(FrugalError.is(error, 'CHECKPOINT'), String(error)).toBe(true);
    // Nothing was taken of it, and it stays.
    expect(weightsOf(second[0])).toEqual(before);
    expect(await readdir(checkpoint.folder)).toEqual(['step-0000000001']);
    return (error as Error).message;
  }

  it('is refused: a deeper model, one less deep, and other links; it says what differs', async () => {
    const plain = (): Link => toySgd(0.1);
    expect(await goOn('deeper', [net(4), plain()], [net(1), plain()])).toMatch(
      /step-0000000001 holds \S+, which this run has not: it was written for another model or optimizer/,
    );
    expect(await goOn('shallower', [net(1), plain()], [net(4), plain()])).toMatch(/holds no model\/4\/kernel/);
    const withAverage = (): Link[] => [plain(), toyAverage()];
    expect(await goOn('fewer links', [net(1), withAverage()], [net(1), plain()])).toContain('which this run has not');
    expect(await goOn('more links', [net(1), plain()], [net(1), withAverage()])).toContain('holds no state/');
    expect(await goOn('other link', [net(1), fallingSgd()], [net(1), plain()])).toMatch(/holds no state/);
  });

  it('goes on with the same model', async () => {
    const checkpoint = { folder: join(folder, 'same') };
    const options = { epochs: 2, progress: false as const, checkpoint, optimizer: toySgd(0.1) };
    const [first, second] = [net(2), net(2)];
    await train(first, vectors, options);
    const report = await train(second, vectors, options);
    expect(report.steps).toBe(2);
    expect(weightsOf(second)).toEqual(weightsOf(first));
  });
});
