import { type Dataset, train } from '@frugal/core';
import { type Curve, enkf, type EnsembleMethod, esmda, inflationCoefficients, mexicanHat, sine } from '@frugal/optim';
import * as tf from '@tensorflow/tfjs';
import type { Chart } from './drawing.js';
import { linesChart } from './lines.js';
import { curveNetwork, firstBatch } from './tools.js';

type Points = [number, number][];

const pointsOf = ({ inputs }: Dataset, values: ArrayLike<number>): Points =>
  Array.from(inputs, (x, i): [number, number] => [x, values[i] as number]).sort(([a], [b]) => a - b);

/** Data, function, mean and two standard deviations of the members on one curve. */
async function bandChart(
  name: string,
  { train: data, test }: Curve,
  way: string,
  make: () => { method: EnsembleMethod; epochs: number; batchSize: number },
): Promise<Chart> {
  const model = curveNetwork(1, 10, 1);
  const { method, epochs, batchSize } = make();
  const report = await train(model, data, {
    methods: [method],
    optimizer: [],
    epochs,
    batchSize,
    seed: 1,
    progress: false,
  });
  const { xs, ys } = firstBatch(test, test.length);
  const { mean, standardDeviation } = report.of(method).predict(xs);
  const deviation = pointsOf(test, standardDeviation.dataSync()).map(([, s]) => 2 * s);
  const chart = linesChart({
    title: `${name}: ${way}`,
    caption:
      'Mean of the predictions of 100 members; the band is two standard deviations of the members, which is the uncertainty of the function and not of an observation.',
    x: 'x',
    y: 'y',
    lines: [
      { name: 'mean', points: pointsOf(test, mean.dataSync()), band: deviation },
      { name: 'function', points: pointsOf(test, test.targets) },
      { name: 'observations', points: pointsOf(data, data.targets), scatter: true },
    ],
  });
  tf.dispose([xs, ys, mean, standardDeviation]);
  model.dispose();
  return chart;
}

/** Predictions with their uncertainty, for both curves and both methods. */
export async function bandCharts(): Promise<Chart[]> {
  const online = () => ({
    method: enkf({ observationNoise: 0.05 }),
    epochs: 1,
    batchSize: 1,
  });
  const offline = () => ({
    method: esmda({ observationNoise: 0.05, coefficients: inflationCoefficients(10) }),
    epochs: 10,
    batchSize: 100,
  });
  const found: Chart[] = [];
  for (const [name, curve] of [
    ['Sine', sine({ seed: 1 })],
    ['Mexican hat', mexicanHat({ seed: 1 })],
  ] as const) {
    found.push(await bandChart(name, curve, 'EnKF, one online pass', online));
    found.push(await bandChart(name, curve, 'ES-MDA, 10 iterations', offline));
  }
  return found;
}

/** RMSE against members, from the figures. */
export function membersChart(figures: Readonly<Record<string, number>>): Chart {
  const points = Object.entries(figures).flatMap(([key, value]): Points => {
    const found = /^members\.(\d+)\.rmse$/.exec(key);
    return found ? [[Number(found[1]), value]] : [];
  });
  return linesChart({
    title: 'Members',
    caption: 'One online pass over the sine; 31 parameters. Logarithmic axes.',
    x: 'members',
    y: 'RMSE to the function',
    lines: [{ name: 'EnKF', points }],
    log: { x: true, y: true },
  });
}
