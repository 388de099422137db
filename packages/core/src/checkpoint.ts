import { access, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import type { StepContext } from './backpropagation.js';
import { type Communicator, oneRank } from './communicator.js';
import { activeEngine } from './engine/ladder.js';
import { FrugalError } from './errors.js';
import type { State } from './opened.js';
import { digests, gatherOne } from './ranks.js';
import { encodeSafetensors, type NamedArray } from './safetensors.js';

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
  /** Batches of an epoch. */
  readonly batches: number;
  /** Epochs of the whole run. */
  readonly epochs: number;
  /** Sum of the losses over the examples of the epoch so far; as the next two over all ranks. */
  readonly lossSum: number;
  /** Correct predictions of the epoch so far. */
  readonly correct: number;
  /** Examples of the epoch so far. */
  readonly seen: number;
  /** Seconds spent in the epoch so far. */
  readonly seconds: number;
}

/** When and where checkpoints are written. */
export interface CheckpointOptions {
  /** Folder; made if missing. With several ranks, one that all of them share. */
  readonly folder: string;
  /** Write every so many steps, besides the end of each epoch. Default: only at the end of each epoch. */
  readonly everySteps?: number;
  /** How many to keep. Default 2. */
  readonly keep?: number;
  /** Go on from the newest readable checkpoint in the folder, if there is one. Default true. */
  readonly resume?: boolean;
}

/** One file of a checkpoint. */
export interface Stored {
  readonly name: string;
  readonly sha256: string;
}

/** What a checkpoint says of itself; written last. */
export interface Manifest<T> {
  readonly format: 'frugal-checkpoint-3';
  /** Number of ranks that wrote it. */
  readonly ranks: number;
  /** One file where all ranks held the same bits; otherwise one for each, in the order of ranks. */
  readonly files: readonly Stored[];
  /** The engine that wrote it: another one goes on with other bits. */
  readonly engine: string;
  readonly cursor: Cursor;
  readonly history: T;
}

export const FORMAT = 'frugal-checkpoint-3';
export const MANIFEST = 'manifest.json';
export const nameOf = (step: number): string => `step-${String(step).padStart(10, '0')}`;
const fileOf = (rank: number, files: number): string =>
  files === 1 ? 'state.safetensors' : `state-${rank}-of-${files}.safetensors`;

/** What a checkpoint keeps of a run, by name: the model's weights, trainable or not, the state of methods and that of links. */
export function keptOf({ model, attachment, chain }: Pick<StepContext, 'model' | 'attachment' | 'chain'>): State {
  const weights = model.weights.map(
    (weight, i) => [`model/${i}/${weight.originalName.split('/').at(-1)}`, weight.read() as tf.Variable] as const,
  );
  // Keyed by position: the names of unnamed layers differ between two builds of one model in a process.
  const state = [...attachment.opened.state(), ...chain.state()].map(
    ([name, kept], i) => [`state/${i}/${name.split('/').slice(0, 2).join('/')}`, kept] as const,
  );
  return new Map<string, tf.Variable | Float64Array>([...weights, ...state]);
}

export const engineName = (): string => activeEngine()?.detail ?? tf.getBackend();

async function writeDurably(path: string, bytes: Buffer | string): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

export async function steps(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => [] as string[]);
  return names.filter((name) => /^step-\d{10}$/.test(name)).sort();
}

async function snapshot(state: State): Promise<Map<string, NamedArray>> {
  const arrays = new Map<string, NamedArray>();
  for (const [name, kept] of state) {
    const values = kept instanceof Float64Array ? kept : await kept.data<'float32'>();
    arrays.set(name, { shape: kept instanceof Float64Array ? [kept.length] : kept.shape, values: values.slice() });
  }
  return arrays;
}

/**
 * The temporary folder of a checkpoint, the same on all ranks; none of them writes before rank 0 has cleared it. Named by
 * its process, so that two jobs in one folder by mistake do not write into each other's.
 */
async function temporaryFolder(target: string, ranks: Communicator): Promise<string> {
  const start = `${target}.tmp-`;
  if (ranks.rank === 0) await rm(`${start}${process.pid}`, { recursive: true, force: true });
  const [owner] = await gatherOne(process.pid, ranks);
  const folder = `${start}${owner}`;
  await mkdir(folder, { recursive: true });
  return folder;
}

/** A rank whose file rank 0 does not see has written to a disk of its own. */
async function checkShared(folder: string, files: readonly Stored[]): Promise<void> {
  for (const { name } of files) {
    // Asked for by name: a network file system may list a folder as it was.
    await access(join(folder, name)).catch((cause: unknown) => {
      throw new FrugalError(
        'CHECKPOINT',
        `Expected ${name} in ${folder} but rank 0 does not see it: no checkpoint was written. The folder must be one that all ranks share.`,
        { cause },
      );
    });
  }
}

async function publish<T>(options: CheckpointOptions, temporary: string, manifest: Manifest<T>): Promise<void> {
  const target = join(options.folder, nameOf(manifest.cursor.step));
  await checkShared(temporary, manifest.files);
  await writeDurably(join(temporary, MANIFEST), JSON.stringify(manifest, null, 2));
  await rm(target, { recursive: true, force: true });
  await rename(temporary, target);
  const old = (await steps(options.folder)).slice(0, -(options.keep ?? 2));
  for (const name of old) await rm(join(options.folder, name), { recursive: true, force: true });
}

/**
 * Writes a checkpoint: into a temporary folder, synced, then renamed. A crash leaves the old one or the new one, never half.
 * A state with a NaN or infinity is refused: the last good checkpoint stays the newest.
 *
 * With ranks, the folder is one that all of them share. Where all hold the same bits rank 0 writes the one file; otherwise
 * each writes its own, in parallel. The manifest comes last, from rank 0.
 *
 * @throws {@link FrugalError} `NON_FINITE`; `CHECKPOINT` where the folder is not shared
 */
export async function saveCheckpoint<T>(
  options: CheckpointOptions,
  state: State,
  cursor: Cursor,
  history: T,
  ranks: Communicator = oneRank,
): Promise<string> {
  const arrays = await snapshot(state);
  for (const [name, { values }] of arrays) {
    if (!values.every(Number.isFinite)) {
      throw new FrugalError(
        'NON_FINITE',
        `At step ${cursor.step} ${name} is not finite; no checkpoint was written, the one before stands. Lower the learning rate.`,
      );
    }
  }
  const bytes = encodeSafetensors(arrays);
  const all = await digests([bytes], ranks);
  const different = all.every((digest) => digest === all[0]) ? all.slice(0, 1) : all;
  const files = different.map((sha256, rank) => ({ name: fileOf(rank, different.length), sha256 }));
  const target = join(options.folder, nameOf(cursor.step));
  const temporary = await temporaryFolder(target, ranks);
  const own = files[ranks.rank];
  if (own) await writeDurably(join(temporary, own.name), bytes);
  await gatherOne(1, ranks);
  if (ranks.rank === 0) {
    const manifest = { format: FORMAT, ranks: ranks.size, files, engine: engineName(), cursor, history } as const;
    await publish(options, temporary, manifest);
  }
  // Complete for whoever comes back from here.
  await gatherOne(1, ranks);
  return target;
}
