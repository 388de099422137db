import { slice, useEngine } from '@frugal/core';
import { anyDigits } from '@frugal/models';
import { type Decentralized, methods, shards, trainNetwork } from './decentralized/network.js';
import { MOMENTA, regressionBias } from './decentralized/regression.js';
import { linesChart } from './lines.js';
import type { BenchOptions } from './options.js';
import { writePage } from './page.js';
import { percent } from './summary.js';
import { beginResults, factsOf, type Figures, mean, type Results, round, table } from './results.js';

const EACH = 500;
const EPOCHS = 100;
const RATE = 0.05;
const TESTS = 5000;
/** Methods that are also run on 16 and 32 ranks. */
const CLAIM = ['pmsgd', 'dmsgd', 'qg', 'decentlam'];

/** Bias of linear regression against momentum, and the figures of the claim. */
async function regression(seed: number, quick: boolean, figures: Figures) {
  const biases = await regressionBias(seed, quick);
  const rows = [['bias of linear regression', ...MOMENTA.map((beta) => `β = ${beta}`)]];
  for (const [name, values] of biases) {
    rows.push([name, ...values.map((value) => value.toExponential(3))]);
    for (const [i, beta] of MOMENTA.entries()) figures[`regression.${name}.${beta}`] = values[i] as number;
  }
  const [own, rival] = [biases.get('decentlam') as number[], biases.get('dmsgd') as number[]];
  const at = MOMENTA.indexOf(0.9);
  figures['regression.bias_spread'] = Math.max(...own) - Math.min(...own);
  figures['regression.relative_spread'] = figures['regression.bias_spread'] / Math.min(...own);
  figures['regression.dmsgd_over_decentlam'] = round((rival[at] as number) / (own[at] as number), 2);
  const chart = linesChart({
    title: 'Bias of linear regression against momentum',
    caption:
      'Mean squared distance of the ranks to the minimum where they come to rest, full gradients, 8 ranks on a ring, γ = 0.001. Logarithmic.',
    x: 'momentum β',
    y: 'bias',
    lines: [...biases]
      .filter(([, values]) => values.every((value) => value > 1e-12))
      .map(([name, values]) => ({ name, points: values.map((value, i) => [MOMENTA[i] as number, value] as const) })),
    log: { y: true },
  });
  return { rows, chart };
}

/** Accuracy of one network on ranks that each know one or two digits. */
async function networks(
  seeds: readonly number[],
  contenders: readonly Decentralized[],
  sizes: readonly number[],
  figures: Figures,
): Promise<string[][]> {
  const { train: all, test } = await anyDigits();
  const held = slice(test, 0, TESTS);
  const rows = [[`${all.name}, sorted shards`, ...sizes.flatMap((n) => [`${n} ranks: mean model`, 'rank models'])]];
  for (const method of contenders) {
    const row = [method.title];
    for (const ranks of sizes) {
      const runs = [];
      for (const seed of seeds) {
        const first = ((seed - 1) * ranks * EACH) % Math.max(1, all.length - ranks * EACH);
        const parts = shards(slice(all, first, all.length), ranks, EACH);
        runs.push(await trainNetwork(method, { parts, test: held }, { epochs: EPOCHS, learningRate: RATE, seed }));
      }
      const [average, nodes] = [mean(runs.map((r) => r.average)), mean(runs.map((r) => r.nodes))];
      figures[`net.${ranks}.${method.key}.accuracy`] = round(average);
      figures[`net.${ranks}.${method.key}.nodes`] = round(nodes);
      row.push(percent(average, 2), percent(nodes, 2));
    }
    rows.push(row);
    process.stderr.write(`${row.join('  ')}\n`);
  }
  return rows;
}

const FOOTNOTES = [
  'Regression: f_i = |A_i·x − b_i|²/100 on each of 8 ranks, A_i of 50 × 10 from N(0, 1), b_i = A_i·x_i with x_i scattered around one x* by 0.5; float64. DecentLaM and QG-DmSGD rest where DSGD does whatever the momentum; DmSGD rests where DSGD would with the rate γ/(1 − β).',
  `Network: 784-64-10 on ${EACH} images per rank, sorted by label, full batches, ${EPOCHS} steps, ring, one rate for all methods, all ranks in one process. The mean model is what a user would keep; rank models are tested one by one and averaged.`,
  'Published order (Yuan et al. 2021, ImageNet, large batches): DecentLaM above QG-DmSGD, DA-DmSGD and PmSGD, and those above DmSGD, AWC-DmSGD and D²-DmSGD.',
];

/** What momentum costs without an all-reduce: the bias of linear regression, and a network on ranks with different data. */
export async function decentralized({ quick, seed, report }: BenchOptions): Promise<Results> {
  const engine = await useEngine();
  const finish = beginResults('decentralized', seed);
  const figures: Figures = {};
  const { rows, chart } = await regression(seed, quick, figures);
  process.stdout.write(`${table(rows)}\n\n`);
  const seeds = Array.from({ length: 5 }, (_, i) => seed + i);
  const nets = [await networks(seeds, methods, [8], figures)];
  // Many ranks in one process take long: those of the claim only.
  if (!quick)
    nets.push(
      await networks(
        seeds,
        methods.filter(({ key }) => CLAIM.includes(key)),
        [16, 32],
        figures,
      ),
    );
  for (const net of nets) process.stdout.write(`${table(net)}\n\n`);
  process.stdout.write(`means over ${seeds.length} seeds, ${engine.detail}\n`);
  const results = finish(figures);
  writePage(report, {
    title: 'Momentum without a centre',
    lead: `At β = 0.9 the bias of DmSGD is ${figures['regression.dmsgd_over_decentlam']} times that of DecentLaM.`,
    tables: [rows, ...nets],
    facts: factsOf(results),
    charts: [chart],
    footnotes: FOOTNOTES,
  });
  return results;
}
