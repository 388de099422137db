import { type Dataset, slice, train, type TrainReport, useEngine } from '@frugal/core';
import { anyDigits, lenet } from '@frugal/models';
import { type Contender, contenders } from './contenders.js';
import type { BenchOptions } from './options.js';
import { beginResults, type Figures, median, type Results, round, table } from './results.js';

const BATCH = 64;

const fit = (
  contender: Contender,
  data: Dataset,
  epochs: number,
  seed: number,
  validation?: Dataset,
): Promise<TrainReport> => {
  const model = lenet({ seed });
  return train(model, data, {
    methods: contender.methods(),
    optimizer: contender.optimizer(),
    epochs,
    batchSize: BATCH,
    seed,
    title: contender.title,
    ...(validation ? { validation } : { progress: false }),
  }).finally(() => model.dispose());
};

/** Epoch times of all contenders, in interleaved rounds over a part of the data, so that drift hits all alike. */
async function interleaved(data: Dataset, rounds: number): Promise<Map<string, number[]>> {
  const times = new Map<string, number[]>(contenders.map(({ key }) => [key, []]));
  for (let r = 0; r <= rounds; r++) {
    for (const contender of contenders) {
      const { seconds } = await fit(contender, data, 1, r);
      // The first round warms up.
      if (r > 0) times.get(contender.key)?.push(seconds);
    }
  }
  return times;
}

const macs = ({ sites }: TrainReport): number => sites.reduce((sum, { done }) => sum + done, 0);

/**
 * Accuracy and time of LeNet on MNIST, exact against sampled, several seeds; time as the ratio of medians of interleaved
 * rounds.
 */
export async function mnist({ quick, seed }: BenchOptions): Promise<Results> {
  const engine = await useEngine();
  const finish = beginResults('mnist', seed);
  const data = await anyDigits();
  process.stderr.write(`${data.train.name} (${data.train.origin})\n`);
  const seeds = quick ? [seed] : [seed, seed + 1, seed + 2, seed + 3, seed + 4];
  const epochs = quick ? 3 : 8;
  const times = await interleaved(slice(data.train, 0, quick ? 7680 : 19200), quick ? 5 : 9);
  const reports = new Map<string, TrainReport[]>();
  for (const s of seeds) {
    for (const contender of contenders) {
      const report = await fit(contender, data.train, epochs, s, data.test);
      reports.set(contender.key, [...(reports.get(contender.key) ?? []), report]);
    }
  }
  const figures: Figures = { real_data: data.train.name === 'MNIST' ? 1 : 0, epochs, seeds: seeds.length };
  const exactTime = median(times.get('exact') as number[]);
  const rows = [['method', 's / epoch', 'epoch ratio', 'test accuracy', 'multiply-adds', 'fallbacks']];
  for (const { key, title } of contenders) {
    const runs = reports.get(key) as TrainReport[];
    const accuracy = median(runs.map((run) => run.epochs.at(-1)?.validation?.accuracy ?? 0));
    const ratio = median(
      (times.get(key) as number[]).map((t, r) => t / ((times.get('exact') as number[])[r] as number)),
    );
    const share = macs(runs[0] as TrainReport) / macs((reports.get('exact') as TrainReport[])[0] as TrainReport);
    const fallbacks = Object.values((runs[0] as TrainReport).fallbacks).reduce((a, b) => a + b, 0);
    const perEpoch = median(runs.flatMap((run) => run.epochs.map(({ seconds }) => seconds)));
    figures[`lenet.${key}.accuracy`] = round(accuracy);
    figures[`lenet.${key}.epoch_seconds`] = round(perEpoch, 3);
    figures[`lenet.${key}.epoch_ratio`] = round(ratio);
    figures[`lenet.${key}.multiply_adds`] = round(share);
    figures[`lenet.${key}.fallbacks`] = fallbacks;
    rows.push([
      title,
      perEpoch.toFixed(2),
      ratio.toFixed(3),
      `${(100 * accuracy).toFixed(2)} %`,
      `${(100 * share).toFixed(1)} %`,
      String(fallbacks),
    ]);
  }
  figures['lenet.timing_examples'] = quick ? 7680 : 19200;
  figures['lenet.exact.timing_seconds'] = round(exactTime, 3);
  process.stdout.write(
    `${table(rows)}\n${data.train.name}, ${epochs} epochs, batch ${BATCH}, ${seeds.length} seed(s), ${engine.detail}\n`,
  );
  return finish(figures);
}
