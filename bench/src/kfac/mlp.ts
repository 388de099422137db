import { type Dataset, FrugalError, type Method, train } from '@frugal/core';
import { kfac, type KfacOptions, sgd } from '@frugal/optim';
import { linesChart } from '../lines.js';
import { type Figures, mean, round } from '../results.js';
import { falling } from './falling.js';
import { illConditioned, tanhNetwork } from './ill-conditioned.js';

const EPOCHS = 20;
const BATCH = 100;
const SGD_RATES = [0.01, 0.03, 0.1, 0.3, 1];
/** With a clip the rate hardly matters: κ sets the length of a step. As many trials as SGD has. */
const CLIPS = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2];
const KFAC_RATE = 0.1;
const INTERVALS = [1, 10, 50, 100];
const SHOWN = [1, 5, 10, 20];

/** Loss over the whole training set after each epoch. */
async function losses(data: Dataset, seed: number, methods: Method[], learningRate: number): Promise<number[]> {
  const model = tanhNetwork(seed);
  const optimizer = sgd({ learningRate: falling(learningRate), momentum: 0.9 });
  const run = { epochs: EPOCHS, batchSize: BATCH, seed, validation: data, progress: false } as const;
  try {
    const { epochs } = await train(model, data, { ...run, methods, optimizer });
    return epochs.map(({ validation }) => validation?.loss ?? Infinity);
  } catch (error) {
    // A rate at which training diverges is a trial like any other.
    if (!FrugalError.is(error, 'NON_FINITE')) throw error;
    return new Array<number>(EPOCHS).fill(Infinity);
  } finally {
    model.dispose();
  }
}

/** Means over seeds, epoch by epoch. */
async function curve(
  seeds: readonly number[],
  run: (data: Dataset, seed: number) => Promise<number[]>,
): Promise<number[]> {
  const runs: number[][] = [];
  for (const seed of seeds) runs.push(await run(illConditioned(seed), seed));
  return Array.from({ length: EPOCHS }, (_, epoch) => mean(runs.map((losses) => losses[epoch] as number)));
}

const ofSgd = (seeds: readonly number[], rate: number): Promise<number[]> =>
  curve(seeds, (data, seed) => losses(data, seed, [], rate));

const ofKfac = (seeds: readonly number[], options: KfacOptions): Promise<number[]> =>
  curve(seeds, (data, seed) => losses(data, seed, [kfac({ factorEvery: 1, inverseEvery: 10, ...options })], KFAC_RATE));

/** The trial whose loss is lowest after this epoch. */
async function best<T>(trials: readonly T[], epoch: number, run: (trial: T) => Promise<number[]>) {
  const curves = [];
  for (const trial of trials) curves.push({ trial, losses: await run(trial) });
  return curves.reduce((a, b) => ((b.losses[epoch - 1] as number) < (a.losses[epoch - 1] as number) ? b : a));
}

/** The ill-conditioned network: SGD and K-FAC, each at its best of five trials, and K-FAC by interval. */
export async function mlpRuns(seeds: readonly number[], figures: Figures) {
  const plain = await best(SGD_RATES, EPOCHS, (rate) => ofSgd(seeds, rate));
  const clipped = await best(CLIPS, 5, (klClip) => ofKfac(seeds, { klClip }));
  const curves: [name: string, losses: readonly number[]][] = [
    [`SGD with momentum, rate ${plain.trial}`, plain.losses],
    [`K-FAC, κ = ${clipped.trial}`, clipped.losses],
    ['K-FAC, sampled labels', await ofKfac(seeds, { klClip: clipped.trial, fisher: 'sampled' })],
    ['K-FAC, inverse form', await ofKfac(seeds, { klClip: clipped.trial, form: 'inverse' })],
  ];
  for (const inverseEvery of INTERVALS.filter((interval) => interval !== 10)) {
    curves.push([
      `K-FAC, decomposed every ${inverseEvery}`,
      await ofKfac(seeds, { klClip: clipped.trial, inverseEvery }),
    ]);
  }
  figures['mlp.sgd.rate'] = plain.trial;
  figures['mlp.kfac.kl_clip'] = clipped.trial;
  for (const epoch of SHOWN) {
    figures[`mlp.sgd.loss.${epoch}`] = round(plain.losses[epoch - 1] as number);
    figures[`mlp.kfac.loss.${epoch}`] = round(clipped.losses[epoch - 1] as number);
  }
  figures['mlp.kfac5_over_sgd20'] = round((clipped.losses[4] as number) / (plain.losses[EPOCHS - 1] as number));
  const rows = [
    ['ill-conditioned MLP, loss after epoch', ...SHOWN.map(String)],
    ...curves.map(([name, values]) => [name, ...SHOWN.map((epoch) => (values[epoch - 1] as number).toFixed(3))]),
  ];
  const chart = linesChart({
    title: 'Loss of the ill-conditioned network',
    caption: `Means over ${seeds.length} seeds, on the training set; SGD and K-FAC each at the best of five settings. Logarithmic.`,
    x: 'epoch',
    y: 'loss',
    lines: curves.slice(0, 3).map(([name, values]) => ({ name, points: values.map((y, i) => [i + 1, y] as const) })),
    log: { y: true },
  });
  return { rows, chart };
}
