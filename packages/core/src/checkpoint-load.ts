import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { type Cursor, engineName, FORMAT, MANIFEST, type Manifest, nameOf, steps, type Stored } from './checkpoint.js';
import { type Communicator, oneRank } from './communicator.js';
import { FrugalError } from './errors.js';
import type { State } from './opened.js';
import { gatherOne } from './ranks.js';
import { decodeSafetensors, type NamedArray } from './safetensors.js';

async function readManifest<T>(path: string): Promise<Manifest<T>> {
  const manifest = JSON.parse(await readFile(join(path, MANIFEST), 'utf8')) as Manifest<T>;
  const format: string = manifest.format;
  if (format !== FORMAT) throw new FrugalError('CHECKPOINT', `${path} has format ${format}, expected ${FORMAT}.`);
  return manifest;
}

async function readState(path: string, { name, sha256 }: Stored): Promise<Map<string, NamedArray>> {
  const file = join(path, name);
  const bytes = await readFile(file);
  if (createHash('sha256').update(bytes).digest('hex') !== sha256)
    throw new FrugalError('CHECKPOINT', `${file} does not match its checksum: the file is damaged.`);
  return decodeSafetensors(bytes, file);
}

/** The mean of the states of several ranks, summed in float64 and rounded once; one state in memory beside the sum. */
async function meanState(path: string, files: readonly Stored[]): Promise<Map<string, NamedArray>> {
  const sums = new Map<string, { single: boolean; shape: readonly number[]; values: Float64Array }>();
  for (const file of files) {
    for (const [name, { shape, values }] of await readState(path, file)) {
      const single = values instanceof Float32Array;
      const sum = sums.get(name) ?? { single, shape, values: new Float64Array(values.length) };
      sums.set(name, sum);
      for (let i = 0; i < values.length; i++) sum.values[i] = (sum.values[i] as number) + (values[i] as number);
    }
  }
  const mean = (sum: Float64Array): Float64Array => sum.map((value) => value / files.length);
  return new Map(
    [...sums].map(([name, { single, shape, values }]) => [
      name,
      { shape, values: single ? Float32Array.from(mean(values)) : mean(values) },
    ]),
  );
}

/** What this rank goes on with: its own file if as many ranks wrote as read, else the mean of all files. */
function stateOf(path: string, { files }: Manifest<unknown>, ranks: Communicator): Promise<Map<string, NamedArray>> {
  const own = files.length === 1 ? files[0] : files.length === ranks.size ? files[ranks.rank] : undefined;
  return own ? readState(path, own) : meanState(path, files);
}

const shapeOf = (kept: tf.Variable | Float64Array): readonly number[] =>
  kept instanceof Float64Array ? [kept.length] : kept.shape;

/** Throws `CHECKPOINT` where the names or shapes of a checkpoint are not those of the run. */
function checkFits(state: State, arrays: ReadonlyMap<string, NamedArray>, path: string): void {
  const unknown = [...arrays.keys()].find((name) => !state.has(name));
  for (const [name, kept] of state) {
    const stored = arrays.get(name);
    if (stored === undefined)
      throw new FrugalError(
        'CHECKPOINT',
        `${path} holds no ${name}: it was written for another model or optimizer. Use another folder.`,
      );
    if (stored.shape.join() !== shapeOf(kept).join()) {
      throw new FrugalError(
        'CHECKPOINT',
        `${path}: ${name} has shape [${stored.shape.join(', ')}], this run needs [${shapeOf(kept).join(', ')}]. Use another folder.`,
      );
    }
  }
  if (unknown !== undefined)
    throw new FrugalError(
      'CHECKPOINT',
      `${path} holds ${unknown}, which this run has not: it was written for another model or optimizer. Use another folder.`,
    );
}

function restore(state: State, arrays: ReadonlyMap<string, NamedArray>): void {
  tf.tidy(() => {
    for (const [name, kept] of state) {
      const { shape, values } = arrays.get(name) as NamedArray;
      if (kept instanceof Float64Array) kept.set(values);
      else kept.assign(tf.tensor(values as Float32Array, [...shape], 'float32'));
    }
  });
}

/** The names of the checkpoints that rank 0 sees, the newest first: a shared folder may show itself late elsewhere. */
async function candidates(folder: string, ranks: Communicator): Promise<string[]> {
  const own = ranks.rank === 0 ? (await steps(folder)).map((name) => Number(name.slice('step-'.length))) : [];
  const found = await ranks.allGather(Float64Array.from(own));
  return [...found].reverse().map(nameOf);
}

interface Found<T> {
  readonly manifest: Manifest<T>;
  readonly arrays: Map<string, NamedArray>;
}

/** Reads one checkpoint; undefined on all ranks where one of them cannot. */
async function readTogether<T>(
  path: string,
  ranks: Communicator,
  warn: (line: string) => void,
): Promise<Found<T> | undefined> {
  let found: Found<T> | undefined;
  let reason = 'another rank cannot read it';
  try {
    const manifest = await readManifest<T>(path);
    found = { manifest, arrays: await stateOf(path, manifest, ranks) };
  } catch (error) {
    reason = (error as Error).message;
  }
  const readable = await gatherOne(found ? 1 : 0, ranks);
  if (!readable.includes(0)) return found;
  if (!found || ranks.rank === 0) warn(`Passing over the damaged checkpoint ${path}: ${reason}`);
  return undefined;
}

/**
 * Restores the newest readable checkpoint of a folder into `state`. A damaged one is passed over with a warning for
 * the one before, by all ranks alike. Returns undefined when there is none.
 *
 * As many ranks as wrote it go on with their own bits; another number of ranks with the mean of all of them, optimizer
 * state included. A checkpoint whose ranks held the same bits goes on with those on any number of ranks.
 *
 * @throws {@link FrugalError} `CHECKPOINT` when the checkpoint belongs to another model or optimizer
 */
export async function loadCheckpoint<T>(
  folder: string,
  state: State,
  warn: (line: string) => void,
  ranks: Communicator = oneRank,
): Promise<{ cursor: Cursor; history: T } | undefined> {
  for (const name of await candidates(folder, ranks)) {
    const path = join(folder, name);
    const found = await readTogether<T>(path, ranks, warn);
    if (!found) continue;
    checkFits(state, found.arrays, path);
    restore(state, found.arrays);
    const { engine, cursor, history } = found.manifest;
    if (engine !== engineName())
      warn(`The checkpoint was made on ${engine}; on ${engineName()} the run goes on with other bits.`);
    return { cursor, history };
  }
  return undefined;
}
