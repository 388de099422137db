import { createHash } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import type { Chain } from './chain.js';
import { activeEngine } from './engine/ladder.js';
import { FrugalError } from './errors.js';
import { decodeSafetensors, encodeSafetensors, type NamedArray } from './safetensors.js';

/** Where a run is, in whole numbers: enough to go on with the same bits. */
export interface Cursor {
  /** Optimizer steps made. */
  readonly step: number;
  /** Epoch in progress, from 0. */
  readonly epoch: number;
  /** Batches of that epoch that are done. */
  readonly batch: number;
  /** Seed of the run. */
  readonly seed: number;
  /** Examples per batch. */
  readonly batchSize: number;
  /** Examples of the data set. */
  readonly examples: number;
  /** Epochs of the whole run. */
  readonly epochs: number;
  /** Sum of the losses over the examples of the epoch so far. */
  readonly lossSum: number;
  /** Correct predictions of the epoch so far. */
  readonly correct: number;
  /** Seconds spent in the epoch so far. */
  readonly seconds: number;
}

/** When and where checkpoints are written. */
export interface CheckpointOptions {
  /** Folder; made if missing. */
  readonly folder: string;
  /** Write every so many steps, besides the end of each epoch. Default: only at the end of each epoch. */
  readonly everySteps?: number;
  /** How many to keep. Default 2. */
  readonly keep?: number;
  /** Go on from the newest readable checkpoint in the folder, if there is one. Default true. */
  readonly resume?: boolean;
}

interface Manifest<T> {
  readonly format: 'frugal-checkpoint-1';
  readonly sha256: string;
  /** The engine that wrote it: another one goes on with other bits. */
  readonly engine: string;
  readonly cursor: Cursor;
  readonly history: T;
}

const WEIGHTS = 'state.safetensors';
const MANIFEST = 'manifest.json';
const nameOf = (step: number): string => `step-${String(step).padStart(10, '0')}`;

/** Variables of a run by name: the model's weights, trainable or not, and the chain's state. */
export function variablesOf(model: tf.LayersModel, links: Chain): Map<string, tf.Variable> {
  const weights = model.weights.map(
    (weight, i) => [`model/${i}/${weight.originalName.split('/').at(-1)}`, weight.read() as tf.Variable] as const,
  );
  // Keyed by position: the names of unnamed layers differ between two builds of one model in a process.
  const state = [...links.state()].map(
    ([name, variable], i) => [`chain/${i}/${name.split('/').slice(0, 2).join('/')}`, variable] as const,
  );
  return new Map([...weights, ...state]);
}

const engineName = (): string => activeEngine()?.detail ?? tf.getBackend();

async function writeDurably(path: string, bytes: Buffer | string): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function steps(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => [] as string[]);
  return names.filter((name) => /^step-\d{10}$/.test(name)).sort();
}

async function snapshot(variables: ReadonlyMap<string, tf.Variable>): Promise<Map<string, NamedArray>> {
  const arrays = new Map<string, NamedArray>();
  for (const [name, variable] of variables) {
    const values = (await variable.data()) as Float32Array;
    arrays.set(name, { shape: variable.shape, values: values.slice() });
  }
  return arrays;
}

/**
 * Writes a checkpoint: into a temporary folder, synced, then renamed. A crash leaves the old one or the new one, never half.
 * A state with a NaN or infinity is refused: the last good checkpoint stays the newest.
 *
 * @throws {@link FrugalError} `NON_FINITE`
 */
export async function saveCheckpoint<T>(
  options: CheckpointOptions,
  variables: ReadonlyMap<string, tf.Variable>,
  cursor: Cursor,
  history: T,
): Promise<string> {
  const arrays = await snapshot(variables);
  for (const [name, { values }] of arrays) {
    if (!values.every(Number.isFinite)) {
      throw new FrugalError(
        'NON_FINITE',
        `At step ${cursor.step} the variable ${name} is not finite; no checkpoint was written, the one before stands. Lower the learning rate.`,
      );
    }
  }
  const bytes = encodeSafetensors(arrays);
  const manifest: Manifest<T> = {
    format: 'frugal-checkpoint-1',
    sha256: createHash('sha256').update(bytes).digest('hex'),
    engine: engineName(),
    cursor,
    history,
  };
  const target = join(options.folder, nameOf(cursor.step));
  const temporary = `${target}.tmp-${process.pid}`;
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true });
  await writeDurably(join(temporary, WEIGHTS), bytes);
  await writeDurably(join(temporary, MANIFEST), JSON.stringify(manifest, null, 2));
  await rm(target, { recursive: true, force: true });
  await rename(temporary, target);
  const old = (await steps(options.folder)).slice(0, -(options.keep ?? 2));
  for (const name of old) await rm(join(options.folder, name), { recursive: true, force: true });
  return target;
}

async function read<T>(path: string): Promise<{ manifest: Manifest<T>; arrays: Map<string, NamedArray> }> {
  const manifest = JSON.parse(await readFile(join(path, MANIFEST), 'utf8')) as Manifest<T>;
  const bytes = await readFile(join(path, WEIGHTS));
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  if (manifest.format !== 'frugal-checkpoint-1')
    throw new FrugalError('CHECKPOINT', `${path} has format ${String(manifest.format)}, expected frugal-checkpoint-1.`);
  if (sha256 !== manifest.sha256)
    throw new FrugalError('CHECKPOINT', `${join(path, WEIGHTS)} does not match its checksum: the file is damaged.`);
  return { manifest, arrays: decodeSafetensors(bytes, join(path, WEIGHTS)) };
}

function restore(
  variables: ReadonlyMap<string, tf.Variable>,
  arrays: ReadonlyMap<string, NamedArray>,
  path: string,
): void {
  for (const [name, variable] of variables) {
    const stored = arrays.get(name);
    if (stored === undefined)
      throw new FrugalError(
        'CHECKPOINT',
        `${path} holds no ${name}: it was written for another model or optimizer. Use another folder.`,
      );
    if (stored.shape.join() !== variable.shape.join()) {
      throw new FrugalError(
        'CHECKPOINT',
        `${path}: ${name} has shape [${stored.shape.join(', ')}], this run needs [${variable.shape.join(', ')}]. Use another folder.`,
      );
    }
  }
  tf.tidy(() => {
    for (const [name, variable] of variables) {
      const { shape, values } = arrays.get(name) as NamedArray;
      variable.assign(tf.tensor(values, [...shape], 'float32'));
    }
  });
}

/**
 * Restores the newest readable checkpoint of a folder into `variables`. A damaged one is passed over with a warning for
 * the one before. Returns undefined when there is none.
 *
 * @throws {@link FrugalError} `CHECKPOINT` when the checkpoint belongs to another model or optimizer
 */
export async function loadCheckpoint<T>(
  folder: string,
  variables: ReadonlyMap<string, tf.Variable>,
  warn: (line: string) => void,
): Promise<{ cursor: Cursor; history: T } | undefined> {
  for (const name of (await steps(folder)).reverse()) {
    const path = join(folder, name);
    let found: Awaited<ReturnType<typeof read<T>>>;
    try {
      found = await read<T>(path);
    } catch (error) {
      warn(`Passing over a damaged checkpoint: ${(error as Error).message}`);
      continue;
    }
    restore(variables, found.arrays, path);
    const { engine } = found.manifest;
    if (engine !== engineName())
      warn(`The checkpoint was made on ${engine}; on ${engineName()} the run goes on with other bits.`);
    return { cursor: found.manifest.cursor, history: found.manifest.history };
  }
  return undefined;
}
