import { useEngine } from '@frugal/core';
import { cifarRuns } from './kfac/cifar.js';
import { mlpRuns } from './kfac/mlp.js';
import { overhead } from './kfac/overhead.js';
import { strategies } from './kfac/strategies.js';
import type { BenchOptions } from './options.js';
import { writePage } from './page.js';
import { beginResults, factsOf, type Figures, type Results, table } from './results.js';

const FOOTNOTES = [
  'Seconds are of training steps only, taken in turns of 20 steps while runs last, so that whatever slows the machine slows all alike. The shorter run of SGD has about the time of K-FAC.',
  'Settings of the CIFAR runs are the best of four (SGD) and of three (K-FAC), on 20,000 training images with 5,000 others held out; one seed.',
  'Overhead: the mean of a whole period, from the medians of its steps that only precondition, that update factors, and that decompose.',
  'Strategies: one after the other, on more ranks than cores; the rank that holds or sends most. Bytes are what a rank hands over; factors travel as triangles.',
];

const two = (figure: number | undefined): string => (figure ?? Number.NaN).toFixed(2);

function leadOf(figures: Figures): string {
  const ratio = figures['cifar.time_ratio'];
  const cifar = ratio === undefined ? '' : ` On CIFAR-10 it comes to SGD's last accuracy in ${two(ratio)} of the time.`;
  const [loss, step] = [figures['mlp.kfac5_over_sgd20'], figures['resnet20.step_overhead']];
  return `Ill-conditioned network: K-FAC after 5 epochs has ${two(loss)} of the loss of SGD after 20. A step on ResNet-20 takes ${two(step)} of one of SGD.${cifar}`;
}

/** K-FAC against SGD: the ill-conditioned network, what a step costs, strategies on ranks, ResNet-20 on CIFAR-10. */
export async function kfacBench({ quick, seed, report }: BenchOptions): Promise<Results> {
  const figures: Figures = {};
  const finish = beginResults('kfac', seed);
  const engine = await useEngine();
  const seeds = Array.from({ length: quick ? 3 : 5 }, (_, i) => seed + i);
  const mlp = await mlpRuns(seeds, figures);
  process.stdout.write(`${table(mlp.rows)}\n\n`);
  const cost = await overhead(quick, figures);
  process.stdout.write(`${table(cost)}\n\n`);
  const ranks = await strategies(quick, figures);
  process.stdout.write(`${typeof ranks === 'string' ? ranks : table(ranks)}\n\n`);
  const cifar = await cifarRuns(quick, seed, figures);
  process.stdout.write(`${typeof cifar === 'string' ? cifar : table(cifar.rows)}\n${engine.detail}\n`);
  const results = finish(figures);
  const found = typeof cifar === 'string' ? { rows: [], charts: [] } : cifar;
  writePage(report, {
    title: 'K-FAC against SGD with momentum',
    lead: leadOf(figures),
    notes: [ranks, cifar].filter((part) => typeof part === 'string'),
    tables: [
      mlp.rows,
      cost,
      ...(typeof ranks === 'string' ? [] : [ranks]),
      ...(found.rows.length > 0 ? [found.rows] : []),
    ],
    facts: factsOf(results),
    charts: [mlp.chart, ...found.charts],
    footnotes: FOOTNOTES,
  });
  return results;
}
