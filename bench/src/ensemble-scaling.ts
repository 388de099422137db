import { fileURLToPath } from 'node:url';
import { train } from '@frugal/core';
import { enkf, sine } from '@frugal/optim';
import * as tf from '@tensorflow/tfjs';
import { mpiJob } from './mpi-job.js';
import { type Figures, mean, median, round } from './results.js';
import { curveNetwork, firstBatch } from './tools.js';

const COUNTS = [10, 25, 50, 100, 200, 400];

async function online(members: number, seed: number): Promise<{ rmse: number; seconds: number }> {
  const { train: data, test } = sine({ seed });
  const model = curveNetwork(1, 10, seed);
  const method = enkf({ members, observationNoise: 0.05, log: () => undefined });
  const run = { epochs: 1, batchSize: 1, optimizer: [], progress: false } as const;
  const report = await train(model, data, { methods: [method], seed, ...run });
  const { xs, ys } = firstBatch(test, test.length);
  const { mean: prediction, standardDeviation } = report.of(method).predict(xs);
  const rmse = tf.tidy(() => Math.sqrt(tf.losses.meanSquaredError(ys, prediction).dataSync()[0] as number));
  tf.dispose([xs, ys, prediction, standardDeviation]);
  model.dispose();
  return { rmse, seconds: report.seconds };
}

/** RMSE and time of one online pass over the sine against the number of members. */
export async function memberScaling(quick: boolean, figures: Figures): Promise<string[][]> {
  const seeds = Array.from({ length: quick ? 3 : 10 }, (_, i) => 1 + i);
  const rows = [['members', 'RMSE on the sine', 's']];
  for (const members of COUNTS) {
    const runs = [];
    for (const seed of seeds) runs.push(await online(members, seed));
    const rmse = mean(runs.map((run) => run.rmse));
    const seconds = median(runs.map((run) => run.seconds));
    figures[`members.${members}.rmse`] = round(rmse);
    figures[`members.${members}.seconds`] = round(seconds, 3);
    rows.push([String(members), rmse.toFixed(4), seconds.toFixed(2)]);
  }
  return rows;
}

/** What each run of `ensemble-rank.ts` prints. */
interface RankRun {
  readonly seconds: number;
  readonly forwardPassesHere: number;
  readonly weights: string;
}

const program = fileURLToPath(new URL('ensemble-rank.ts', import.meta.url));
/** One job of so many ranks, each with one thread, so that ranks and not threads are compared. */
const job = (ranks: number): Promise<RankRun> => mpiJob(program, { ranks, threads: 1, placement: ['--oversubscribe'] });

/** Time of ES-MDA with its members over ranks of a real MPI job; or the reason why there is none. */
export async function rankScaling(figures: Figures): Promise<string[][] | string> {
  const rows = [['ranks', 's', 'speed-up', 'forward passes of rank 0', 'weights of one rank']];
  let first: RankRun | undefined;
  for (const ranks of [1, 2]) {
    let runs: RankRun[];
    try {
      runs = [await job(ranks), await job(ranks), await job(ranks)];
    } catch (error) {
      return `No scaling in ranks: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`;
    }
    const seconds = median(runs.map((one) => one.seconds));
    const [one] = runs as [RankRun];
    first ??= { ...one, seconds };
    const same = one.weights === first.weights;
    figures[`ranks.${ranks}.seconds`] = round(seconds, 3);
    figures[`ranks.${ranks}.same_weights`] = same ? 1 : 0;
    const speed = (first.seconds / seconds).toFixed(2);
    rows.push([
      String(ranks),
      seconds.toFixed(2),
      speed,
      String(one.forwardPassesHere),
      same ? 'the same bits' : 'other',
    ]);
  }
  figures['ranks.speed_up'] = round((first?.seconds ?? 0) / (figures['ranks.2.seconds'] as number), 3);
  return rows;
}
