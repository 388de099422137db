import type { TrainReport } from '@frugal/core';
import type { Point } from './curves.js';
import { median, type Results } from './results.js';

/** A method's complete run. */
export interface MethodRun {
  /** Title of the method. */
  readonly title: string;
  /** What `train` tells. */
  readonly report: TrainReport;
  /** Loss of every step. */
  readonly points: readonly Point[];
}

/** What the quick start found; the first run is the exact one. */
export interface Comparison {
  /** The runs that were completed. */
  readonly runs: readonly MethodRun[];
  /** Where the data came from. */
  readonly data: { readonly name: string; readonly origin: string; readonly examples: number; readonly tests: number };
  readonly epochs: number;
  readonly batch: number;
  readonly seed: number;
  /** The engine, in words. */
  readonly engine: string;
  /** What was cut short, reduced or interrupted. */
  readonly notes: readonly string[];
  /** Did the machine leave the runs alone, so that their times can be compared? */
  readonly steady: boolean;
  /** Machine and versions. */
  readonly results: Pick<Results, 'machine' | 'versions' | 'commit' | 'started' | 'seconds'>;
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** A whole number with separators. */
export const grouped = (value: number): string => Math.round(value).toLocaleString('en-US');
/** A share as percents. */
export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`;

/** Multiply-adds that a run did. */
export const multiplyAdds = ({ sites }: TrainReport): number => sum(sites.map(({ done }) => done));

/** Multiply-adds with the unit that suits them. */
export function amount(count: number): string {
  const giga = count / 1e9;
  if (giga >= 100) return `${grouped(giga)} G`;
  return `${giga.toFixed(giga >= 10 ? 1 : 2)} G`;
}

/** The figures of one run. */
export interface Figure {
  readonly title: string;
  /** Median over the epochs. */
  readonly secondsPerEpoch: number;
  /** Exact time over this one's. */
  readonly speedUp: number;
  readonly accuracy: number | undefined;
  readonly done: number;
  /** Done of what exact training would have done. */
  readonly share: number;
  readonly fallbacks: number;
}

/** The figures of all runs, the exact one first. */
export function figuresOf(runs: readonly MethodRun[]): Figure[] {
  const perEpoch = ({ report }: MethodRun): number => median(report.epochs.map(({ seconds }) => seconds));
  return runs.map((run) => {
    const { sites, epochs, fallbacks } = run.report;
    const done = multiplyAdds(run.report);
    return {
      title: run.title,
      secondsPerEpoch: perEpoch(run),
      speedUp: perEpoch(runs[0] as MethodRun) / perEpoch(run),
      accuracy: epochs.at(-1)?.validation?.accuracy,
      done,
      share: done / sum(sites.map((site) => site.exact)),
      fallbacks: sum(Object.values(fallbacks)),
    };
  });
}

/** Epochs of one run do the same work: where their times differ much, something else took the machine. */
export function unsteadyNotes(runs: readonly MethodRun[]): string[] {
  return runs.flatMap(({ title, report }) => {
    const times = report.epochs.map(({ seconds }) => seconds);
    const [low, high] = [Math.min(...times), Math.max(...times)];
    if (high <= 1.25 * low) return [];
    return `The epochs of ${title} took ${low.toFixed(1)} to ${high.toFixed(1)} s: something else used the machine, so take the speed-ups with care.`;
  });
}

/** The table of the quick start, head first, for the terminal and the report. */
export function summaryRows(runs: readonly MethodRun[]): string[][] {
  return [
    ['method', 's / epoch', 'speed-up', 'test accuracy', 'multiply-adds', 'of exact', 'kernels fallen back'],
    ...figuresOf(runs).map((figure) => [
      figure.title,
      figure.secondsPerEpoch.toFixed(2),
      `${figure.speedUp.toFixed(2)} ×`,
      figure.accuracy === undefined ? '–' : percent(figure.accuracy, 2),
      amount(figure.done),
      percent(figure.share),
      grouped(figure.fallbacks),
    ]),
  ];
}

/** `1 epoch`, `2 epochs`. */
export const count = (number: number, noun: string): string => `${grouped(number)} ${noun}${number === 1 ? '' : 's'}`;

/** The data set, and where it came from. */
export const source = ({ name, origin, tests }: Comparison['data']): string =>
  `${name}, ${origin}; ${grouped(tests)} test examples`;

/** How long and with what the methods trained. */
export const schedule = ({ epochs, data, batch, seed }: Comparison): string =>
  `${count(epochs, 'epoch')} × ${grouped(data.examples)} examples, batch ${batch}, seed ${seed}`;

/** What stands under the table. */
export function settings(comparison: Comparison): string[] {
  return [
    `engine    ${comparison.engine}`,
    `data      ${source(comparison.data)}`,
    `training  ${schedule(comparison)}`,
  ];
}

/** Kernels that ran in plain JavaScript, over all runs: `Name (calls)`. */
export function fallbackNames(runs: readonly MethodRun[]): string[] {
  const calls = new Map<string, number>();
  for (const { report } of runs)
    for (const [name, count] of Object.entries(report.fallbacks)) calls.set(name, (calls.get(name) ?? 0) + count);
  return [...calls].map(([name, count]) => `${name} (${grouped(count)})`);
}
