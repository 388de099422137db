import { type Dataset, slice, train, type TrainReport, useEngine } from '@frugal/core';
import { anyDigits, lenet } from '@frugal/models';
import { type Contender, contenders } from './contenders.js';
import type { BenchOptions } from './options.js';
import { multiplyAdds } from './summary.js';
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

const sumOf = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((a, b) => a + b, 0);

/** All seeds of all contenders. */
async function trainAll(
  data: { train: Dataset; test: Dataset },
  seeds: readonly number[],
  epochs: number,
): Promise<Map<string, TrainReport[]>> {
  const reports = new Map<string, TrainReport[]>(contenders.map(({ key }) => [key, []]));
  for (const seed of seeds) {
    for (const contender of contenders)
      reports.get(contender.key)?.push(await fit(contender, data.train, epochs, seed, data.test));
  }
  return reports;
}

/** The figures of one contender, and its row of the table. */
function summarise(
  contender: Contender,
  runs: readonly TrainReport[],
  exact: readonly TrainReport[],
  ratio: number,
): { figures: Figures; row: string[] } {
  const accuracy = median(runs.map((run) => run.epochs.at(-1)?.validation?.accuracy ?? 0));
  const [run, reference] = [runs[0] as TrainReport, exact[0] as TrainReport];
  const share = multiplyAdds(run) / multiplyAdds(reference);
  const seconds = median(runs.flatMap(({ epochs }) => epochs.map((epoch) => epoch.seconds)));
  const key = `lenet.${contender.key}`;
  const figures = {
    [`${key}.accuracy`]: round(accuracy),
    [`${key}.epoch_seconds`]: round(seconds, 3),
    [`${key}.epoch_ratio`]: round(ratio),
    [`${key}.multiply_adds`]: round(share),
    [`${key}.fallbacks`]: sumOf(run.fallbacks),
  };
  const cells = [
    seconds.toFixed(2),
    ratio.toFixed(3),
    `${(100 * accuracy).toFixed(2)} %`,
    `${(100 * share).toFixed(1)} %`,
  ];
  return { figures, row: [contender.title, ...cells, String(sumOf(run.fallbacks))] };
}

/**
 * Accuracy and time of LeNet on MNIST, exact against sampled, several seeds. The ratio of epoch times comes from interleaved
 * rounds over a part of the data: the median over rounds of sampled over exact.
 */
export async function mnist({ quick, seed }: BenchOptions): Promise<Results> {
  const engine = await useEngine();
  const finish = beginResults('mnist', seed);
  const data = await anyDigits();
  const seeds = Array.from({ length: quick ? 1 : 5 }, (_, i) => seed + i);
  const epochs = quick ? 3 : 8;
  const part = slice(data.train, 0, quick ? 7680 : 19200);
  const times = await interleaved(part, quick ? 7 : 9);
  const reports = await trainAll(data, seeds, epochs);
  const exact = times.get('exact') as number[];
  const figures: Figures = {
    real_data: data.train.name === 'MNIST' ? 1 : 0,
    epochs,
    seeds: seeds.length,
    timing_examples: part.length,
  };
  const rows = [['method', 's / epoch', 'epoch ratio', 'test accuracy', 'multiply-adds', 'fallbacks']];
  for (const contender of contenders) {
    const ratio = median((times.get(contender.key) as number[]).map((t, r) => t / (exact[r] as number)));
    const { figures: own, row } = summarise(
      contender,
      reports.get(contender.key) as TrainReport[],
      reports.get('exact') as TrainReport[],
      ratio,
    );
    Object.assign(figures, own);
    rows.push(row);
  }
  process.stdout.write(
    `${table(rows)}\n${data.train.name}, ${epochs} epochs, batch ${BATCH}, ${seeds.length} seed(s), ${engine.detail}\n`,
  );
  return finish(figures);
}
