import { parseArgs } from 'node:util';

/** What the quick start was asked to do. */
export interface QuickstartOptions {
  /** Passes over the data. */
  readonly epochs: number;
  /** Training examples that were asked for; undefined: the default, which may be reduced to keep the time. */
  readonly examples?: number;
  /** Examples per step. */
  readonly batch: number;
  /** Seed of weights, order and sampling, the same for every method. */
  readonly seed: number;
  /** Where the report goes. */
  readonly report: string;
}

/** Training examples unless the caller says otherwise. */
export const DEFAULT_EXAMPLES = 20_000;

export const USAGE = `script/quickstart [--epochs N] [--examples N | --all] [--batch N] [--seed N] [--report FILE]
  Trains LeNet on digits three ways (exact, top-k 0.5, top-k 0.5 + Demon) and compares them.
  --epochs    passes over the data (default 3)
  --examples  how many training examples (default ${DEFAULT_EXAMPLES}, fewer on a slow engine; a number given here is kept)
  --all       all training examples
  --batch     examples per step (default 64)
  --seed      seed of weights, order and sampling (default 1)
  --report    where the report goes (default report.html)
  FRUGAL_DATA=FOLDER   holds the folder mnist; otherwise the cache, a download, or digits drawn by the program
  FRUGAL_ENGINE=NAME   tensorflow, native, portable or cpu; otherwise the fastest that works`;

/** A wrong option: the message says which and why. */
export class UsageError extends Error {}

function integer(name: string, text: string, min: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value) || value < min)
    throw new UsageError(`--${name}: expected a whole number from ${min} on, received ${JSON.stringify(text)}.`);
  return value;
}

function parse(args: readonly string[]): Record<string, string | boolean | undefined> {
  try {
    return parseArgs({
      args: args.filter((arg) => arg !== '--'),
      options: {
        epochs: { type: 'string', default: '3' },
        examples: { type: 'string' },
        all: { type: 'boolean', default: false },
        batch: { type: 'string', default: '64' },
        seed: { type: 'string', default: '1' },
        report: { type: 'string', default: 'report.html' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** Reads the command line; `help` where usage was asked for. */
export function quickstartOptions(args: readonly string[]): QuickstartOptions | 'help' {
  const values = parse(args);
  if (values['help'] === true) return 'help';
  const text = (name: string): string => String(values[name]);
  const { examples, all } = values;
  if (examples !== undefined && all === true) throw new UsageError('--examples and --all: give one of them.');
  if (text('report') === '') throw new UsageError('--report: expected the name of a file, received "".');
  return {
    epochs: integer('epochs', text('epochs'), 1),
    ...(all === true && { examples: Number.POSITIVE_INFINITY }),
    ...(examples !== undefined && { examples: integer('examples', text('examples'), 1) }),
    batch: integer('batch', text('batch'), 1),
    seed: integer('seed', text('seed'), 0),
    report: text('report'),
  };
}
