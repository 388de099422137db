import { slice, useEngine } from '@frugal/core';
import { anyDigits, cifar10 } from '@frugal/models';
import { fit, type Split } from './feedback.js';
import { feedbackContenders } from './feedback-contenders.js';
import type { BenchOptions } from './options.js';
import { percent } from './summary.js';
import { beginResults, type Figures, mean, type Results, round, table } from './results.js';

/** Epochs shrink as the data grow. */
const SIZES = [
  { examples: 1000, epochs: 30 },
  { examples: 5000, epochs: 10 },
  { examples: 50_000, epochs: 2 },
] as const;

const contenders = feedbackContenders.filter(({ key }) => ['bp', 'cdfa', 'dfa', 'bdfa', 'frozen'].includes(key));

interface Plan {
  readonly seeds: readonly number[];
  readonly sizes: readonly { readonly examples: number; readonly epochs: number }[];
}

/** Mean and its standard error. */
function summary(values: readonly number[]): { mean: number; error: number } {
  const centre = mean(values);
  const variance = values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / Math.max(1, values.length - 1);
  return { mean: centre, error: Math.sqrt(variance / values.length) };
}

/** Accuracy of every contender on parts of a data set. */
async function subsets(name: string, data: Split, { seeds, sizes }: Plan, figures: Figures): Promise<void> {
  const rows = [[name, ...contenders.map(({ key }) => key)]];
  for (const { examples, epochs } of sizes) {
    const row = [String(examples)];
    for (const contender of contenders) {
      const found: number[] = [];
      for (const [index, seed] of seeds.entries()) {
        // A part of its own for each seed, the same one for each contender.
        const first = (index * examples) % Math.max(1, data.train.length - examples + 1);
        const part = slice(data.train, first, first + examples);
        found.push((await fit(contender, { train: part, test: data.test }, { epochs, seed })).accuracy);
      }
      const { mean: accuracy, error } = summary(found);
      const key = `${name}.${examples}.${contender.key}`;
      figures[`${key}.accuracy`] = round(accuracy);
      figures[`${key}.standard_error`] = round(error);
      row.push(`${percent(accuracy, 2)} ± ${(100 * error).toFixed(2)}`);
    }
    rows.push(row);
    process.stdout.write(`${table(rows)}\n\n`);
  }
}

function missing(error: unknown): undefined {
  process.stderr.write(`CIFAR-10 is left out: ${error instanceof Error ? error.message : String(error)}\n`);
}

/**
 * Is direct feedback ahead of back-propagation when data are few, as Han and Yoo claim? Parts of MNIST and CIFAR-10, a part
 * and a start of its own for each seed.
 */
export async function smallData({ quick, seed }: BenchOptions): Promise<Results> {
  await useEngine();
  const finish = beginResults('small-data', seed);
  const seeds = Array.from({ length: quick ? 2 : 5 }, (_, i) => seed + i);
  const plan = { seeds, sizes: quick ? SIZES.slice(0, 1) : SIZES };
  const figures: Figures = { seeds: seeds.length };
  await subsets('mnist', await anyDigits(), plan, figures);
  const pictures = await cifar10().catch(missing);
  if (pictures) await subsets('cifar', pictures, plan, figures);
  return finish(figures);
}
