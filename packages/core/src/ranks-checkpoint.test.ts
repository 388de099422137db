import { mkdtemp, readdir, readFile, rm, truncate, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cursor, saveCheckpoint } from './checkpoint.js';
import { loadCheckpoint } from './checkpoint-load.js';
import type { Communicator } from './communicator.js';
import { FrugalError } from './errors.js';
import type { TrainOptions, TrainReport } from './run.js';
import { relativeError } from './testing/engines.js';
import { meanGradient, runRanks } from './testing/ranks.js';
import { toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import { train } from './train.js';

const data = toyImages(50);
let folder = '';
beforeAll(async () => {
  await tf.setBackend('cpu');
  folder = await mkdtemp(join(tmpdir(), 'frugal-ranks-'));
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
const at = (step: number): Cursor => ({ ...CURSOR, step });

/** Each rank saves `values(rank)`, at the steps given. */
function saveOn(
  size: number,
  name: string,
  steps: readonly number[],
  value: (rank: number, step: number) => number,
): Promise<unknown> {
  return runRanks(size, async (communicator) => {
    const w = tf.variable(tf.fill([3], 0));
    for (const step of steps) {
      w.assign(tf.fill([3], value(communicator.rank, step)));
      await saveCheckpoint({ folder: join(folder, name), keep: 9 }, new Map([['w', w]]), at(step), [], communicator);
    }
  });
}

interface Loaded {
  readonly step: number | undefined;
  readonly values: number[];
  readonly warnings: string[];
}

function loadOn(size: number, name: string): Promise<Loaded[]> {
  return runRanks(size, async (communicator) => {
    const w = tf.variable(tf.zeros([3]));
    const warnings: string[] = [];
    const found = await loadCheckpoint(
      join(folder, name),
      new Map([['w', w]]),
      (line) => warnings.push(line),
      communicator,
    );
    return { step: found?.cursor.step, values: [...w.dataSync()], warnings };
  });
}

const valuesOf = (loaded: readonly Loaded[]): number[][] => loaded.map(({ values }) => values);

describe('a checkpoint of several ranks', () => {
  it('is one file where all hold the same bits, and goes on anywhere', async () => {
    await saveOn(3, 'same', [1], () => 0.1);
    expect(await readdir(join(folder, 'same', 'step-0000000001'))).toEqual(['manifest.json', 'state.safetensors']);
    for (const size of [1, 2, 3, 5]) {
      expect(valuesOf(await loadOn(size, 'same'))).toEqual(
        Array.from({ length: size }, () => [0.1, 0.1, 0.1].map(Math.fround)),
      );
    }
  });

  it('is a file for each where they differ: its own for the same number, else the mean', async () => {
    await saveOn(2, 'own', [1], (rank) => [1, 4][rank]!);
    expect(await readdir(join(folder, 'own', 'step-0000000001'))).toEqual([
      'manifest.json',
      'state-0-of-2.safetensors',
      'state-1-of-2.safetensors',
    ]);
    expect(valuesOf(await loadOn(2, 'own'))).toEqual([
      [1, 1, 1],
      [4, 4, 4],
    ]);
    for (const size of [1, 3]) {
      expect(valuesOf(await loadOn(size, 'own'))).toEqual(Array.from({ length: size }, () => [2.5, 2.5, 2.5]));
    }
  });

  it.each(['truncated', 'missing'])(
    'with a %s file of one rank is passed over by all, with a message',
    async (damage) => {
      await saveOn(2, damage, [1, 2], (rank, step) => 10 * step + rank);
      const file = join(folder, damage, 'step-0000000002', 'state-1-of-2.safetensors');
      await (damage === 'missing' ? unlink(file) : truncate(file, 20));
      const [first, second] = await loadOn(2, damage);
      expect([first!.step, second!.step]).toEqual([1, 1]);
      expect([first!.values[0], second!.values[0]]).toEqual([10, 11]);
      expect(first!.warnings[0]).toMatch(
        /Passing over the damaged checkpoint .*step-0000000002: another rank cannot read it/,
      );
      expect(second!.warnings[0]).toMatch(/step-0000000002: .*(does not match its checksum|ENOENT)/);
      expect(valuesOf(await loadOn(3, damage))[2]).toEqual([10.5, 10.5, 10.5]);
    },
  );

  it('is not written where the folder is not shared', async () => {
    const save = runRanks(2, async (communicator) => {
      const w = tf.variable(tf.fill([3], communicator.rank));
      const own = join(folder, `disk-${communicator.rank}`);
      await saveCheckpoint({ folder: own }, new Map([['w', w]]), at(1), [], communicator);
    });
    await expect(save).rejects.toThrow(
      /Expected state-1-of-2.safetensors in .* The folder must be one that all ranks share/,
    );
    expect((await readdir(join(folder, 'disk-0'))).filter((name) => /^step-\d+$/.test(name))).toEqual([]);
  });
});

const base = { epochs: 3, batchSize: 14, seed: 1, progress: false } as const;
type Own = (communicator: Communicator) => Partial<TrainOptions>;

/** Trains on `size` ranks; a run that was stopped gives its weights all the same. */
function trainOn(
  size: number,
  build: () => tf.LayersModel,
  own: Own = () => ({}),
): Promise<{ weights: number[]; report?: TrainReport }[]> {
  return runRanks(size, async (communicator) => {
    const model = build();
    const optimizer = [meanGradient(), toySgd(0.05)];
    try {
      const report = await train(model, data, { ...base, optimizer, communicator, ...own(communicator) });
      return { weights: weightsOf(model), report };
    } catch (error) {
      if (!FrugalError.is(error, 'ABORTED')) throw error;
      return { weights: weightsOf(model) };
    }
  });
}

/** Stops all ranks after step `step`, in the second epoch. */
const stopAt =
  (name: string): Own =>
  () => {
    const stop = new AbortController();
    const progress: TrainOptions['progress'] = ({ kind, epoch, batch }) => {
      if (kind === 'step' && epoch === 2 && batch === 1) stop.abort();
    };
    return { checkpoint: { folder: join(folder, name) }, signal: stop.signal, progress };
  };
const goOn =
  (name: string): Own =>
  () => ({ checkpoint: { folder: join(folder, name) }, signal: new AbortController().signal });

describe('a run of several ranks', () => {
  it.each([1, 2, 3])('that 2 ranks began goes on with %i', async (size) => {
    const name = `run-${size}`;
    const whole = await trainOn(2, () => toyModel(1));
    const stopped = await trainOn(2, () => toyModel(1), stopAt(name));
    expect(stopped.map(({ report }) => report)).toEqual([undefined, undefined]);
    expect(await readdir(join(folder, name))).toContain('step-0000000006');
    const resumed = await trainOn(size, () => toyModel(9), goOn(name));
    for (const { weights, report } of resumed) {
      if (size === 2) expect(weights).toEqual(whole[0]!.weights);
      // Another order of summation in float32.
      expect(relativeError(weights, whole[0]!.weights)).toBeLessThan(1e-5);
      report!.epochs.forEach(({ loss, accuracy }, i) => {
        expect(loss).toBeCloseTo(whole[0]!.report!.epochs[i]!.loss, 5);
        expect(accuracy).toBe(whole[0]!.report!.epochs[i]!.accuracy);
      });
    }
  });

  it('goes on with two where one began', async () => {
    const alone = await trainOn(1, () => toyModel(1), stopAt('one'));
    expect(alone[0]!.report).toBeUndefined();
    const whole = await trainOn(1, () => toyModel(1));
    const resumed = await trainOn(2, () => toyModel(9), goOn('one'));
    expect(relativeError(resumed[1]!.weights, whole[0]!.weights)).toBeLessThan(1e-5);
  });

  it('keeps the bits of each rank, statistics and dropout too', async () => {
    const build = (): tf.LayersModel => toyModel(1, { batchNorm: true, dropout: 0.2 });
    const whole = await trainOn(2, build);
    expect(whole[0]!.weights).not.toEqual(whole[1]!.weights);
    await trainOn(2, build, stopAt('bits'));
    const resumed = await trainOn(2, build, goOn('bits'));
    expect(resumed.map(({ weights }) => weights)).toEqual(whole.map(({ weights }) => weights));
  });

  it('writes nothing that depends on the number of ranks into the cursor', async () => {
    const cursors: unknown[] = [];
    for (const size of [1, 2, 3]) {
      await trainOn(
        size,
        () => toyModel(1),
        (communicator) => ({ ...stopAt(`cursor-${size}`)(communicator), signal: undefined as never, epochs: 1 }),
      );
      const manifest = await readFile(join(folder, `cursor-${size}`, 'step-0000000004', 'manifest.json'), 'utf8');
      cursors.push({ ...(JSON.parse(manifest) as { cursor: Cursor }).cursor, seconds: 0 });
    }
    expect(cursors[1]).toEqual(cursors[0]);
    expect(cursors[2]).toEqual(cursors[0]);
  });
});
