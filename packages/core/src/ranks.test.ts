import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Communicator } from './communicator.js';
import { batches, type Dataset, partOf, slice } from './data.js';
import { evaluate } from './evaluate.js';
import type { ExchangeLink, Link } from './link.js';
import { averageModel } from './ranks.js';
import type { TrainOptions, TrainReport } from './run.js';
import { stepper } from './stepper.js';
import { relativeError } from './testing/engines.js';
import { meanGradient, runRanks } from './testing/ranks.js';
import { toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import { train } from './train.js';

const data = toyImages(50);
const base = { epochs: 2, batchSize: 14, seed: 1, progress: false } as const;

interface Trained {
  readonly model: tf.LayersModel;
  readonly report: TrainReport;
}

type Own = (communicator: Communicator) => Partial<TrainOptions> & { model?: tf.LayersModel; data?: Dataset };

/** Trains on `size` ranks, each with options, model and data of its own. */
function trainRanks(
  size: number,
  own: Own = () => ({}),
  links: () => Link[] = () => [meanGradient()],
): Promise<Trained[]> {
  return runRanks(size, async (communicator) => {
    const { model = toyModel(1), data: mine = data, ...options } = own(communicator);
    const optimizer = [...links(), toySgd(0.05)];
    const report = await train(model, mine, { ...base, optimizer, communicator, ...options });
    return { model, report };
  });
}

const trainAlone = async (options: Partial<TrainOptions> = {}, model = toyModel(1), set = data): Promise<Trained> => ({
  model,
  report: await train(model, set, { ...base, optimizer: toySgd(0.05), ...options }),
});

/** An exchange that does nothing: every rank goes its own way. */
const silent = (): ExchangeLink => ({
  kind: 'exchange',
  name: 'silent',
  open: () => ({ exchange: async (gradients) => new Map([...gradients].map(([name, g]) => [name, tf.mul(g, 1)])) }),
});

beforeAll(() => tf.setBackend('cpu'));

describe('parts of a batch', () => {
  it('cover it once, and a rank without examples gets one with share 0', () => {
    for (const [count, size] of [
      [14, 3],
      [8, 4],
      [2, 5],
      [1, 7],
      [9, 1],
    ] as const) {
      const parts = Array.from({ length: size }, (_, rank) => partOf(count, { rank, size }));
      const covered = parts.flatMap(({ from, to, share }) =>
        share > 0 ? Array.from({ length: to - from }, (_, i) => from + i) : [],
      );
      expect(covered).toEqual(Array.from({ length: count }, (_, i) => i));
      expect(parts.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 12);
      for (const { from, to } of parts) expect(to > from && to <= count).toBe(true);
    }
  });

  it('are cut from every batch in the one order of all ranks', () => {
    const read = (part?: { rank: number; size: number }): number[][] => {
      const result: number[][] = [];
      for (const { xs } of batches(data, { batchSize: 14, shuffle: { seed: 1, epoch: 0 }, ...(part && { part }) }))
        result.push([...xs.dataSync()]);
      return result;
    };
    const parts = [0, 1, 2].map((rank) => read({ rank, size: 3 }));
    expect(read()).toEqual(read().map((_, i) => parts.flatMap((part) => part[i]!)));
  });
});

describe("training with division 'batch'", () => {
  it.each([2, 3, 5])('makes the steps of one rank with the whole batch, on %i ranks', async (size) => {
    // 14 and, at the end of an epoch, 8 examples: uneven on 3 and 5 ranks.
    const alone = await trainAlone({ validation: data });
    const ranks = await trainRanks(size, () => ({ validation: data }));
    for (const { model, report } of ranks) {
      expect(relativeError(weightsOf(model), weightsOf(alone.model))).toBeLessThan(1e-5);
      expect(weightsOf(model)).toEqual(weightsOf(ranks[0]!.model));
      report.epochs.forEach((epoch, i) => {
        const expected = alone.report.epochs[i]!;
        expect(epoch.loss).toBeCloseTo(expected.loss, 5);
        expect(epoch.accuracy).toBe(expected.accuracy);
        expect(epoch.validation!.loss).toBeCloseTo(expected.validation!.loss, 5);
        expect(epoch.validation!.accuracy).toBeCloseTo(expected.validation!.accuracy!, 12);
        expect(epoch).not.toHaveProperty('nodes');
      });
    }
  });

  it('goes on when the last batch has fewer examples than there are ranks', async () => {
    const few = slice(data, 0, 29);
    const alone = await trainAlone({}, toyModel(1), few);
    const ranks = await trainRanks(3, () => ({ data: few }));
    expect(relativeError(weightsOf(ranks[2]!.model), weightsOf(alone.model))).toBeLessThan(1e-5);
    expect(ranks[1]!.report.epochs[1]!.loss).toBeCloseTo(alone.report.epochs[1]!.loss, 5);
    expect(ranks[1]!.report.epochs[1]!.accuracy).toBe(alone.report.epochs[1]!.accuracy);
  });

  it('control: an unweighted mean of uneven parts is another gradient', async () => {
    const alone = await trainAlone();
    const ranks = await trainRanks(
      3,
      () => ({}),
      () => [meanGradient(({ size }) => 1 / size)],
    );
    expect(relativeError(weightsOf(ranks[0]!.model), weightsOf(alone.model))).toBeGreaterThan(1e-4);
  });

  it('starts from the weights of rank 0, statistics included', async () => {
    const own = (seed: number): tf.LayersModel => toyModel(seed, { batchNorm: true });
    const ranks = await trainRanks(2, ({ rank }) => ({ model: own(rank + 1), epochs: 1 }));
    const same = await trainRanks(2, () => ({ model: own(1), epochs: 1 }));
    expect(weightsOf(ranks[1]!.model)).toEqual(weightsOf(same[1]!.model));
  });

  it('gives every rank dropout of its own, the same in every run', async () => {
    const once = (size: number): Promise<Trained[]> =>
      trainRanks(size, () => ({ model: toyModel(1, { dropout: 0.3 }) }));
    const [a, b] = [await once(2), await once(2)];
    expect(weightsOf(a[0]!.model)).toEqual(weightsOf(b[0]!.model));
    const alike = await trainRanks(2, () => ({ model: toyModel(1, { dropout: 0.3 }), seed: 2 }));
    expect(weightsOf(alike[0]!.model)).not.toEqual(weightsOf(a[0]!.model));
  });

  it('stops all ranks after the same step when one is told to', async () => {
    const ranks = runRanks(3, (communicator) => {
      const stop = new AbortController();
      const progress: TrainOptions['progress'] = ({ batch }) => {
        if (communicator.rank === 1 && batch === 2) stop.abort();
      };
      const optimizer = [meanGradient(), toySgd()];
      return train(toyModel(1), data, { ...base, optimizer, communicator, signal: stop.signal, progress }).then(
        () => 'no error',
        (error: unknown) => (error as Error).message,
      );
    });
    expect(await ranks).toEqual(Array.from({ length: 3 }, () => 'exact: stopped at step 3 by its signal.'));
  });

  it('refuses ranks that were told different things, on all of them, and ranks that nothing connects', async () => {
    const told = (own: Own): Promise<unknown> =>
      runRanks(2, async (communicator) => {
        const { model = toyModel(1), data: mine = data, ...options } = own(communicator);
        const run = train(model, mine, { ...base, optimizer: [meanGradient(), toySgd()], communicator, ...options });
        return run.then(
          () => 'no error',
          (error: unknown) => (error as Error).message,
        );
      });
    const same = (text: string): unknown => Array.from({ length: 2 }, () => expect.stringContaining(text) as unknown);
    expect(await told(({ rank }) => ({ seed: rank }))).toEqual(
      same('the same seed on all ranks but rank 0 has 0 and rank 1 has 1'),
    );
    expect(await told(({ rank }) => ({ data: rank ? slice(data, 0, 49) : data }))).toEqual(same('number of examples'));
    await expect(
      trainRanks(
        2,
        () => ({}),
        () => [],
      ),
    ).rejects.toThrow('each would train a model of its own');
    await expect(trainRanks(2, () => ({ division: 'both' as never }))).rejects.toThrow('division');
    const mixed = trainRanks(2, ({ rank }) => ({ division: rank ? 'data' : 'batch' }));
    await expect(mixed).rejects.toThrow('the same division on all ranks');
  });

  it('lets rank 0 alone print', async () => {
    const written: string[] = [];
    const write = process.stderr.write.bind(process.stderr);
    process.stderr.write = ((text: string) => written.push(text) > 0) as typeof process.stderr.write;
    try {
      await runRanks(3, (communicator) => {
        const optimizer = [meanGradient(), toySgd()];
        return train(toyModel(1), data, { epochs: 1, optimizer, communicator });
      });
    } finally {
      process.stderr.write = write;
    }
    expect(written.filter((line) => line.includes('"epoch":1')).length).toBe(1);
  });
});

describe("training with division 'data'", () => {
  it('takes whole batches of its own data, with share 1/n', async () => {
    // Two halves, each batch of 7 of each: in the stored order they are the batches of 14 of the interleaved whole.
    const halves = [slice(data, 0, 25), slice(data, 25, 50)];
    const seen: number[] = [];
    const spy = (): ExchangeLink => {
      const link = meanGradient();
      return {
        ...link,
        open(context) {
          const { exchange } = link.open(context);
          return {
            exchange(gradients, scope) {
              seen.push(scope.share);
              return exchange(gradients, scope);
            },
          };
        },
      };
    };
    const ranks = await trainRanks(
      2,
      ({ rank }) => ({ data: halves[rank]!, batchSize: 25, division: 'data', epochs: 3 }),
      () => [spy()],
    );
    const alone = await trainAlone({ batchSize: 50, epochs: 3 });
    expect(new Set(seen)).toEqual(new Set([0.5]));
    expect(relativeError(weightsOf(ranks[1]!.model), weightsOf(alone.model))).toBeLessThan(1e-5);
    expect(ranks[1]!.report.epochs[2]!.loss).toBeCloseTo(alone.report.epochs[2]!.loss, 5);
  });

  it('refuses ranks with different numbers of batches', async () => {
    const sets = [data, slice(data, 0, 20)];
    await expect(trainRanks(2, ({ rank }) => ({ data: sets[rank]!, division: 'data' }))).rejects.toThrow(
      'number of batches on all ranks but rank 0 has 4 and rank 1 has 2',
    );
  });
});

describe('stepper', () => {
  it('divides a batch as train does, and has the same refusal', async () => {
    const xs = tf.tensor(data.inputs.slice(0, 14 * 64), [14, 8, 8, 1], 'float32');
    const ys = tf.oneHot(tf.tensor1d(data.targets.slice(0, 14), 'int32'), 3);
    const steps = async (communicator: Communicator | undefined, options: object = {}, seed = 1): Promise<number[]> => {
      const model = toyModel(seed);
      const optimizer = communicator ? [meanGradient(), toySgd(1e-4)] : toySgd(1e-4);
      const { step, dispose } = stepper(model, { optimizer, ...(communicator && { communicator }), ...options });
      for (let i = 0; i < 3; i++) await step({ xs, ys });
      dispose();
      return weightsOf(model);
    };
    const alone = await steps(undefined);
    const ranks = await runRanks(3, (communicator) => steps(communicator, {}, communicator.rank + 1));
    expect(relativeError(ranks[2]!, alone)).toBeLessThan(1e-5);
    const own = await runRanks(3, (communicator) => steps(communicator, { division: 'data' }));
    expect(relativeError(own[0]!, alone)).toBeLessThan(1e-5);
    expect(() => stepper(toyModel(1), { optimizer: [meanGradient(), toySgd()] })).toThrow(
      'meanGradient exchanges tensors with other ranks: pass { communicator }.',
    );
  });
});

describe('evaluation over ranks', () => {
  const validation = toyImages(31, 9);

  it('is of the mean model, and of each, where the models differ; own weights are back to the bit', async () => {
    const halves = [slice(data, 0, 25), slice(data, 25, 50)];
    const ranks = await trainRanks(
      2,
      ({ rank }) => ({
        data: halves[rank]!,
        division: 'data',
        epochs: 1,
        validation,
        model: toyModel(1, { batchNorm: true }),
      }),
      () => [silent()],
    );
    // The silent link leaves each rank where it would have come alone.
    const alone = await trainAlone({ epochs: 1 }, toyModel(1, { batchNorm: true }), halves[1]!);
    expect(weightsOf(ranks[1]!.model)).toEqual(weightsOf(alone.model));
    expect(weightsOf(ranks[0]!.model)).not.toEqual(weightsOf(alone.model));
    const mean = toyModel(1, { batchNorm: true });
    mean.setWeights(
      mean
        .getWeights()
        .map((w, i) =>
          tf.tidy(() =>
            tf.div(tf.add(ranks[0]!.model.getWeights()[i]!, ranks[1]!.model.getWeights()[i]!), 2).reshape(w.shape),
          ),
        ),
    );
    const expected = evaluate(mean, validation);
    for (const { report } of ranks) {
      const [epoch] = report.epochs;
      expect(epoch!.validation!.loss).toBeCloseTo(expected.loss, 5);
      expect(epoch!.nodes).toEqual(ranks.map(({ model }) => evaluate(model, validation)));
    }
    await runRanks(2, ({ rank, ...rest }) => averageModel(ranks[rank]!.model, { rank, ...rest }));
    expect(relativeError(weightsOf(ranks[0]!.model), weightsOf(mean))).toBeLessThan(1e-6);
    expect(weightsOf(ranks[1]!.model)).toEqual(weightsOf(ranks[0]!.model));
  });

  it('averages only the statistics where only they differ, without nodes', async () => {
    const ranks = await trainRanks(2, () => ({ model: toyModel(1, { batchNorm: true }), epochs: 1, validation }));
    expect(weightsOf(ranks[0]!.model)).not.toEqual(weightsOf(ranks[1]!.model));
    const [a, b] = ranks.map(({ report }) => report.epochs[0]!);
    expect(a!.validation).toEqual(b!.validation);
    expect(a).not.toHaveProperty('nodes');
    await runRanks(2, (communicator) => averageModel(ranks[communicator.rank]!.model, communicator));
    expect(a!.validation!.loss).toBeCloseTo(evaluate(ranks[0]!.model, validation).loss, 5);
  });

  it('keeps the bits of equal weights in a mean of any number of ranks', async () => {
    const model = toyModel(3);
    const before = weightsOf(model);
    const models = await runRanks(7, async (communicator) => {
      const own = toyModel(3);
      await averageModel(own, communicator);
      return own;
    });
    for (const one of models) expect(weightsOf(one)).toEqual(before);
  });
});
