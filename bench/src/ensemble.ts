import { type Dataset, train, useEngine } from '@frugal/core';
import {
  type Curve,
  enkf,
  type EnsembleMethod,
  esmda,
  friedman,
  inflationCoefficients,
  mexicanHat,
  sgd,
  sine,
} from '@frugal/optim';
import * as tf from '@tensorflow/tfjs';
import { ensembleDigits } from './ensemble-digits.js';
import { memberScaling, rankScaling } from './ensemble-scaling.js';
import { curveNetwork, firstBatch, loopOverMembers } from './tools.js';
import type { BenchOptions } from './options.js';
import { bandCharts, membersChart } from './ensemble-report.js';
import { writePage } from './page.js';
import { beginResults, factsOf, type Figures, mean, median, type Results, round, table } from './results.js';

const MEMBERS = 100;
const ITERATIONS = 10;
const DESCENT = 200;
/** What one example costs gradient descent, in forward passes: forward, and about twice that backward. */
const BACKWARD = 3;
const RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1];

interface Problem {
  readonly key: string;
  make(seed: number): Curve;
  readonly inputs: number;
  readonly hidden: number;
  /** J: more than the network has parameters. */
  readonly members: number;
  /** Observation error: the noise, and what the network cannot represent. */
  readonly noise: number;
}

const problems: readonly Problem[] = [
  { key: 'sine', make: (seed) => sine({ seed }), inputs: 1, hidden: 10, members: MEMBERS, noise: 0.05 },
  { key: 'hat', make: (seed) => mexicanHat({ seed }), inputs: 1, hidden: 10, members: MEMBERS, noise: 0.05 },
  { key: 'friedman', make: (seed) => friedman({ seed }), inputs: 10, hidden: 10, members: 300, noise: 0.1 },
];

interface Score {
  readonly rmse: number;
  readonly r2: number;
  readonly seconds: number;
}

function score(predicted: ArrayLike<number>, { targets }: Dataset, seconds: number): Score {
  const centre = mean(Array.from(targets));
  let [error, total] = [0, 0];
  for (const [i, target] of targets.entries()) {
    error += ((predicted[i] as number) - target) ** 2;
    total += (target - centre) ** 2;
  }
  return { rmse: Math.sqrt(error / targets.length), r2: 1 - error / total, seconds };
}

const quiet = { progress: false, optimizer: [] } as const;

/** An ensemble method, scored by the mean of its members' predictions on the function without noise. */
async function assimilate(
  problem: Problem,
  seed: number,
  make: () => EnsembleMethod,
  run: { epochs: number; batchSize: number },
): Promise<Score> {
  const { train: data, test } = problem.make(seed);
  const model = curveNetwork(problem.inputs, problem.hidden, seed);
  const method = make();
  const report = await train(model, data, { methods: [method], seed, ...run, ...quiet });
  const { xs, ys } = firstBatch(test, test.length);
  const { mean: prediction, standardDeviation } = report.of(method).predict(xs);
  const result = score(prediction.dataSync(), test, report.seconds);
  tf.dispose([xs, ys, prediction, standardDeviation]);
  model.dispose();
  return result;
}

/** Plain gradient descent, once with each rate; the best on the function without noise, which favours it. */
async function descend(problem: Problem, seed: number, run: { epochs: number; batchSize: number }): Promise<Score> {
  const scores: Score[] = [];
  const { train: data, test } = problem.make(seed);
  for (const learningRate of RATES) {
    const model = curveNetwork(problem.inputs, problem.hidden, seed);
    try {
      const { seconds } = await train(model, data, { seed, ...run, ...quiet, optimizer: sgd({ learningRate }) });
      const { xs, ys } = firstBatch(test, test.length);
      const y = model.predict(xs) as tf.Tensor;
      scores.push(score(y.dataSync(), test, seconds));
      tf.dispose([xs, ys, y]);
    } catch {
      // A rate that diverges is not the best one.
    } finally {
      model.dispose();
    }
  }
  return scores.reduce((best, next) => (next.rmse < best.rmse ? next : best));
}

interface Way {
  readonly key: string;
  readonly title: string;
  readonly run: (seed: number) => Promise<Score>;
}

/** The whole data set in one batch. */
const WHOLE = 1000;

/** Ensembles and gradient descent on one problem, at equal passes and at equal forward passes. */
function waysOf(problem: Problem): Way[] {
  const { members, noise: observationNoise } = problem;
  const coefficients = inflationCoefficients(ITERATIONS);
  const [passes, iterations] = [Math.round(members / BACKWARD), Math.round((members * ITERATIONS) / BACKWARD)];
  const online = () => enkf({ members, observationNoise });
  const offline = () => esmda({ members, observationNoise, coefficients });
  const sgdOf = (epochs: number) => (seed: number) => descend(problem, seed, { epochs, batchSize: 1 });
  const gdOf = (epochs: number) => (seed: number) => descend(problem, seed, { epochs, batchSize: WHOLE });
  return [
    {
      key: 'enkf',
      title: `EnKF, one pass, J = ${members}`,
      run: (seed) => assimilate(problem, seed, online, { epochs: 1, batchSize: 1 }),
    },
    { key: 'sgd', title: 'SGD, one pass', run: sgdOf(1) },
    { key: 'sgd_equal', title: `SGD, ${passes} passes: the forward passes of EnKF`, run: sgdOf(passes) },
    {
      key: 'esmda',
      title: `ES-MDA, ${ITERATIONS} iterations, J = ${members}`,
      run: (seed) => assimilate(problem, seed, offline, { epochs: ITERATIONS, batchSize: WHOLE }),
    },
    { key: 'gd', title: `full-batch GD, ${DESCENT} iterations`, run: gdOf(DESCENT) },
    {
      key: 'gd_equal',
      title: `full-batch GD, ${iterations} iterations: the forward passes of ES-MDA`,
      run: gdOf(iterations),
    },
  ];
}

async function solve(problem: Problem, seeds: readonly number[], figures: Figures): Promise<string[][]> {
  const means = new Map<string, number>();
  const rows: string[][] = [];
  for (const { key, title, run } of waysOf(problem)) {
    const scores: Score[] = [];
    for (const seed of seeds) scores.push(await run(seed));
    const rmse = mean(scores.map((s) => s.rmse));
    const r2 = mean(scores.map((s) => s.r2));
    const seconds = median(scores.map((s) => s.seconds));
    means.set(key, rmse);
    figures[`${problem.key}.${key}.rmse`] = round(rmse);
    figures[`${problem.key}.${key}.r2`] = round(r2);
    figures[`${problem.key}.${key}.seconds`] = round(seconds, 3);
    rows.push([`${problem.key}: ${title}`, rmse.toFixed(4), r2.toFixed(4), seconds.toFixed(2)]);
  }
  const over = (a: string, b: string): number => round((means.get(a) as number) / (means.get(b) as number));
  figures[`${problem.key}.enkf.rmse_ratio`] = over('enkf', 'sgd');
  figures[`${problem.key}.enkf_over_sgd_equal`] = over('enkf', 'sgd_equal');
  figures[`${problem.key}.esmda_over_gd`] = over('esmda', 'gd');
  figures[`${problem.key}.esmda_over_gd_equal`] = over('esmda', 'gd_equal');
  return rows;
}

/** How much faster all members are at once than one by one, for the network of the curves: median of interleaved rounds. */
async function batchedForward(rounds: number): Promise<number> {
  const { train: data, test } = sine();
  const model = curveNetwork(1, 10, 1);
  const method = enkf({ members: MEMBERS, observationNoise: 0.05 });
  const report = await train(model, data, { methods: [method], seed: 1, epochs: 1, batchSize: 10, ...quiet });
  const { xs, ys } = firstBatch(test, test.length);
  const { predict } = report.of(method);
  const loop = loopOverMembers(model, MEMBERS, xs);
  const ratios: number[] = [];
  for (let r = 0; r <= rounds; r++) {
    let started = performance.now();
    tf.dispose(Object.values(predict(xs)));
    const batched = performance.now() - started;
    started = performance.now();
    loop();
    if (r > 0) ratios.push((performance.now() - started) / batched);
  }
  tf.dispose([xs, ys]);
  model.dispose();
  return median(ratios);
}

const FOOTNOTES = [
  'Gradient descent is run with each of six rates, and the best one by the error on the function itself is shown, which favours it. Passes are equal between EnKF and SGD of one pass; forward passes are equal where the table says so, a backward pass counted as two.',
  'Enough passes of gradient descent reach a lower error than any ensemble here: the ensemble moves in the span of its members, and pays for each forward pass as often as it has members.',
  'Ranks divide the forward passes of the members; the analysis is made by every rank.',
];

/**
 * Ensemble Kalman methods against gradient descent: at equal passes over the data, and at equal numbers of forward passes; a
 * small classification; scaling in members and ranks.
 */
export async function ensemble({ quick, seed, report }: BenchOptions): Promise<Results> {
  const engine = await useEngine();
  const finish = beginResults('ensemble', seed);
  const seeds = Array.from({ length: quick ? 3 : 10 }, (_, i) => seed + i);
  const figures: Figures = { seeds: seeds.length, members: MEMBERS };
  const rows = [['problem and method', 'RMSE', 'R²', 's']];
  for (const problem of problems) rows.push(...(await solve(problem, seeds, figures)));
  const means = `means over ${seeds.length} seeds`;
  process.stdout.write(`${table(rows)}\n${means}, ${engine.detail}\n\n`);
  figures['forward.batched_over_loop'] = round(await batchedForward(quick ? 15 : 41), 2);
  const tables = [rows, await memberScaling(quick, figures)];
  const ranks = await rankScaling(figures);
  if (typeof ranks === 'string') process.stdout.write(`${ranks}\n\n`);
  else tables.push(ranks);
  tables.push(await ensembleDigits(quick, seed, figures));
  for (const one of tables.slice(1)) process.stdout.write(`${table(one)}\n\n`);
  const results = finish(figures);
  writePage(report, {
    title: 'Ensembles against gradients',
    lead: `RMSE is to the function without noise, ${means}. All members at once are ${(figures['forward.batched_over_loop'] as number).toFixed(1)} times as fast as one after the other.`,
    notes: typeof ranks === 'string' ? [ranks] : [],
    tables,
    facts: factsOf(results),
    charts: [...(await bandCharts()), membersChart(figures)],
    footnotes: FOOTNOTES,
  });
  return results;
}
