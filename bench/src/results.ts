import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { activeEngine } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** What a benchmark measured, by name. */
export type Figures = Record<string, number>;

/** What stands behind a figure. */
export interface Results {
  readonly bench: string;
  readonly figures: Figures;
  readonly machine: Record<string, string | number>;
  readonly versions: Record<string, string>;
  readonly seed: number;
  readonly commit: string;
  readonly started: string;
  readonly seconds: number;
}

function commit(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    return `${git('rev-parse', '--short', 'HEAD')}${git('status', '--porcelain', '--untracked-files=no') === '' ? '' : ' with changes'}`;
  } catch {
    return 'unknown';
  }
}

/** Starts the clock of a benchmark; call the result with the figures at its end. */
export function beginResults(
  bench: string,
  seed: number,
  versions: Record<string, string> = {},
): (figures: Figures) => Results {
  const started = new Date();
  return (figures) => ({
    bench,
    figures,
    machine: {
      processor: cpus()[0]?.model.trim() ?? 'unknown',
      cores: cpus().length,
      memoryGiB: Math.round(totalmem() / 2 ** 30),
      system: `${process.platform} ${process.arch}`,
      engine: activeEngine()?.detail ?? tf.getBackend(),
    },
    versions: { node: process.versions.node, tfjs: tf.version_core, ...versions },
    seed,
    commit: commit(),
    started: started.toISOString(),
    seconds: Math.round((Date.now() - started.getTime()) / 100) / 10,
  });
}

/** Writes a results file. */
export function writeResults(path: string, results: Results): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(results, null, 2)}\n`);
}

/** Machine and versions behind figures, as a page lists them. */
export function factsOf(results: Results): [string, string][] {
  return [
    ['Engine', String(results.machine['engine'])],
    ...machineFacts(results),
    ['Seed', String(results.seed)],
    ['Started', results.started],
  ];
}

/** The part of {@link factsOf} that every page has. */
export function machineFacts({
  machine,
  versions,
  commit,
}: Pick<Results, 'machine' | 'versions' | 'commit'>): [string, string][] {
  const described = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return [
    ['Machine', `${machine['processor'] ?? 'unknown'}, ${machine['cores'] ?? '?'} cores, ${machine['system'] ?? ''}`],
    ['Versions', `${described.join(', ')}, commit ${commit}`],
  ];
}

/** The middle value; the mean of the two middle ones for an even count. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[half] as number)
    : ((sorted[half - 1] as number) + (sorted[half] as number)) / 2;
}

/** The mean. */
export function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/** Rounds for a results file. */
export function round(value: number, digits = 4): number {
  return Number(value.toFixed(digits));
}

/** A table for a terminal: the first column to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column] as number) : cell.padStart(widths[column] as number),
      )
      .join('  ');
  const [head = [], ...body] = rows;
  return [line(head), widths.map((w) => '─'.repeat(w)).join('  '), ...body.map(line)].join('\n');
}

/** What to say when other work is likely to disturb the timings. */
export function busyNote(load: number = loadavg()[0] ?? 0, cores: number = cpus().length): string | undefined {
  return load > cores * 0.75 ? `The machine is busy (load ${load.toFixed(1)}): timings will be wrong.` : undefined;
}

/** Warns when other work is likely to disturb the timings. */
export function warnIfBusy(): void {
  const note = busyNote();
  if (note !== undefined) process.stderr.write(`${note}\n`);
}
