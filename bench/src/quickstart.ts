import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type Dataset, FrugalError, slice, train, useEngine } from '@frugal/core';
import { anyDigits, lenet } from '@frugal/models';
import { affordable, type Amount, measureCosts, ROUND_SECONDS, roundSeconds } from './budget.js';
import { type Contender, contenders } from './contenders.js';
import { recorder } from './curves.js';
import {
  DEFAULT_EXAMPLES,
  type QuickstartOptions,
  quickstartOptions,
  USAGE,
  UsageError,
} from './quickstart-options.js';
import { reportHtml } from './report.js';
import { beginResults, busyNote, table } from './results.js';
import {
  type Comparison,
  count,
  fallbackNames,
  grouped,
  type MethodRun,
  settings,
  summaryRows,
  unsteadyNotes,
} from './summary.js';

interface Data {
  readonly train: Dataset;
  readonly test: Dataset;
}

const say = (line: string): void => void process.stderr.write(`${line}\n`);
const minutes = (seconds: number): string =>
  seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;

/** A place for the report that can be written is worth knowing before minutes of work. */
function preparePlace(path: string): string {
  const whole = resolve(path);
  mkdirSync(dirname(whole), { recursive: true });
  if (statSync(whole, { throwIfNoEntry: false })?.isDirectory())
    throw new UsageError(`--report: ${whole} is a folder, a file is needed.`);
  return whole;
}

const part = (chosen: number, all: number): string =>
  chosen === all ? `all ${grouped(all)}` : `${grouped(chosen)} of ${grouped(all)}`;

/** How much of the data is used; whatever has to be said about it goes to `note`. */
async function plan(
  data: Data,
  { examples, epochs, batch }: QuickstartOptions,
  note: (line: string) => void,
): Promise<Amount> {
  const available = data.train.length;
  if (examples !== undefined && Number.isFinite(examples) && examples > available)
    note(`There are ${grouped(available)} training examples: that is all, not ${grouped(examples)}.`);
  const wanted = { examples: Math.min(examples ?? DEFAULT_EXAMPLES, available), tests: data.test.length };
  const costs = await measureCosts(contenders, data.train, data.test, batch);
  const chosen = examples === undefined ? affordable(costs, wanted, batch) : wanted;
  if (chosen !== wanted)
    note(
      `Steps are slow here (${Math.round(1000 * (costs.step[0] as number))} ms per exact step): training on ${part(chosen.examples, wanted.examples)} examples and testing on ${part(chosen.tests, wanted.tests)}, to stay near ${minutes(ROUND_SECONDS * epochs)}. --examples ${wanted.examples} keeps all.`,
    );
  say(
    `${contenders.length} methods × ${count(epochs, 'epoch')} × ${grouped(chosen.examples)} examples: about ${minutes(roundSeconds(costs, chosen, batch) * epochs)}.`,
  );
  return chosen;
}

async function fit(
  contender: Contender,
  { train: data, test }: Data,
  { epochs, batch, seed }: QuickstartOptions,
  signal: AbortSignal,
): Promise<MethodRun> {
  const { title } = contender;
  const { progress, points } = recorder({ examples: data.length, batch }, title);
  const model = lenet({ seed });
  try {
    const report = await train(model, data, {
      methods: contender.methods(),
      optimizer: contender.optimizer(),
      epochs,
      batchSize: batch,
      seed,
      validation: test,
      title,
      signal,
      progress,
    });
    return { title, report, points };
  } finally {
    model.dispose();
  }
}

interface Outcome {
  readonly runs: readonly MethodRun[];
  /** 0, or 1 when a method failed, or 130 after an interruption. */
  readonly code: number;
}

/** Runs the methods in turn. An interruption ends it with what is complete; a method that fails leaves the others. */
async function compare(data: Data, options: QuickstartOptions, signal: AbortSignal, notes: string[]): Promise<Outcome> {
  const runs: MethodRun[] = [];
  let code = 0;
  for (const [index, contender] of contenders.entries()) {
    try {
      signal.throwIfAborted();
      runs.push(await fit(contender, data, options, signal));
    } catch (error) {
      if (process.stderr.isTTY) say('');
      if (signal.aborted) {
        const missing = contenders.slice(index).map(({ title }) => title);
        notes.push(`Interrupted: ${missing.join(' and ')} ${missing.length === 1 ? 'is' : 'are'} missing.`);
        break;
      }
      // Without the exact run there is nothing to compare with.
      if (runs.length === 0 || !FrugalError.is(error)) throw error;
      notes.push(`${contender.title} failed and is missing: ${error.message}`);
      code = 1;
    }
  }
  return { runs, code: signal.aborted ? 130 : code };
}

function conclude(comparison: Comparison, path: string): void {
  const fallbacks = fallbackNames(comparison.runs);
  const lines = [
    '',
    table(summaryRows(comparison.runs)),
    '',
    ...settings(comparison),
    ...(fallbacks.length === 0 ? [] : [`fallbacks ${fallbacks.join(', ')}`]),
    ...comparison.notes.map((note) => `note      ${note}`),
  ];
  writeFileSync(path, reportHtml(comparison));
  process.stdout.write(`${lines.join('\n')}\nreport    ${path}\n`);
}

/** From the choice of the engine to the last run. */
async function measure(options: QuickstartOptions, signal: AbortSignal): Promise<Comparison & Outcome> {
  const { epochs, batch, seed } = options;
  const notes: string[] = [];
  const note = (line: string): void => {
    notes.push(line);
    say(line);
  };
  const busy = busyNote();
  if (busy !== undefined) note(busy);
  const engine = (await useEngine()).detail;
  const finish = beginResults('quickstart', seed);
  const { train: all, test } = await anyDigits();
  const { examples, tests } = await plan({ train: all, test }, options, note);
  const used = { train: slice(all, 0, examples), test: slice(test, 0, tests) };
  const outcome = await compare(used, options, signal, notes);
  const unsteady = unsteadyNotes(outcome.runs);
  return {
    ...outcome,
    data: { name: all.name, origin: all.origin, examples, tests },
    epochs,
    batch,
    seed,
    engine,
    notes: [...notes, ...unsteady],
    steady: busy === undefined && unsteady.length === 0,
    results: finish({}),
  };
}

async function quickstart(options: QuickstartOptions, signal: AbortSignal): Promise<number> {
  const path = preparePlace(options.report);
  const comparison = await measure(options, signal);
  if (comparison.runs.length > 0) conclude(comparison, path);
  else say('Interrupted before the first method was complete: there is nothing to report.');
  return comparison.code;
}

async function main(args: readonly string[]): Promise<number> {
  // The first interrupt ends the run in order; a second one ends the process.
  const controller = new AbortController();
  process.once('SIGINT', () => controller.abort());
  try {
    const options = quickstartOptions(args);
    if (options !== 'help') return await quickstart(options, controller.signal);
    process.stdout.write(`${USAGE}\n`);
    return 0;
  } catch (error) {
    if (error instanceof UsageError) say(`quickstart: ${error.message}\n${USAGE}`);
    else if (FrugalError.is(error)) say(`quickstart: ${error.message}`);
    else throw error;
    return error instanceof UsageError ? 2 : 1;
  }
}

process.exitCode = await main(process.argv.slice(2));
