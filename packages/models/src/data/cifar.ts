import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { checkDataset, type Dataset, FrugalError } from '@frugal/core';
import { download, type Remote } from './download.js';
import { decompress, readBounded, readMaybeGzip, untar, writeAtomically } from './file.js';
import { checkLabels } from './idx.js';
import {
  checkDataOptions,
  type DataOptions,
  dataError,
  exists,
  locate,
  type Source,
  type Split,
  unavailable,
} from './source.js';

const PLANE = 32 * 32;
const ROW = 1 + 3 * PLANE;
/** A file holds 30.7 MB, the unpacked archive 184 MB; what is longer is refused. */
const FILE_LIMIT = 2 ** 26;
const ARCHIVE_LIMIT = 2 ** 28;
const TRAIN = [1, 2, 3, 4, 5].map((i) => `data_batch_${i}.bin`);
const TEST = ['test_batch.bin'];
const CLASSES = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'];
const ARCHIVE: Remote = {
  urls: ['https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'],
  bytes: 170052171,
  md5: 'c32a1d4ab5d03f1284b67883e8d87530',
};

/** Writes the data files of the archive `path` into `folder`. Throws `DATA`. */
export async function unpackCifar(
  path: string,
  folder: string,
  wanted: readonly string[] = [...TRAIN, ...TEST],
): Promise<void> {
  const members = untar(await decompress(await readBounded(path, ARCHIVE_LIMIT), path, ARCHIVE_LIMIT), path);
  for (const name of wanted) {
    const bytes = members.get(name);
    if (bytes === undefined) throw new FrugalError('DATA', `${path}: expected a member ${name} but found none.`);
    await writeAtomically(join(folder, name), (handle) => handle.writeFile(bytes));
  }
}

const SOURCE: Source = {
  name: 'CIFAR-10',
  folder: 'cifar-10-batches-bin',
  files: [...TRAIN, ...TEST],
  fetch: async (folder, log) => {
    const archive = join(folder, 'cifar-10-binary.tar.gz');
    // An archive that is there was checked when it came; only its unpacking was interrupted.
    if (!(await exists(archive))) await download(archive, ARCHIVE, log);
    await unpackCifar(archive, folder);
    await rm(archive);
    return 'www.cs.toronto.edu';
  },
};

/**
 * Reads a file of CIFAR-10's binary version: for each example a label byte, then the red, green and blue planes of
 * 32 × 32 bytes. The pixels are written channels last at `inputs[from · 3072]`, the labels at `targets[from]`.
 * Throws `DATA` on a length that is not a multiple of 3073, or a label of 10 or more.
 */
export function parseCifar(bytes: Uint8Array, file: string): { inputs: Uint8Array; targets: Uint8Array } {
  const count = bytes.length / ROW;
  if (!Number.isInteger(count) || count === 0) {
    const remedy = 'The file is damaged or of another version: the binary version is wanted.';
    throw dataError(file, `a multiple of ${ROW} bytes (label, red, green, blue)`, `${bytes.length} bytes`, remedy);
  }
  const targets = Uint8Array.from({ length: count }, (_, i) => bytes[i * ROW] as number);
  checkLabels(targets, file, CLASSES.length);
  const inputs = new Uint8Array(count * 3 * PLANE);
  for (let i = 0, to = 0; i < count; i++) {
    const red = i * ROW + 1;
    for (let p = red; p < red + PLANE; p++) {
      inputs[to++] = bytes[p] as number;
      inputs[to++] = bytes[p + PLANE] as number;
      inputs[to++] = bytes[p + 2 * PLANE] as number;
    }
  }
  return { inputs, targets };
}

async function readPart(path: string, files: readonly string[], origin: string): Promise<Dataset> {
  const parts: { inputs: Uint8Array; targets: Uint8Array }[] = [];
  for (const name of files) {
    const { file, bytes } = await readMaybeGzip(join(path, name), FILE_LIMIT);
    parts.push(parseCifar(bytes, file));
  }
  const length = parts.reduce((sum, part) => sum + part.targets.length, 0);
  const inputs = new Uint8Array(length * 3 * PLANE);
  const targets = new Uint8Array(length);
  let from = 0;
  for (const part of parts) {
    inputs.set(part.inputs, from * 3 * PLANE);
    targets.set(part.targets, from);
    from += part.targets.length;
  }
  // Per channel, over the training images.
  const normalize = { mean: [125.3069, 122.9504, 113.8654], std: [62.9932, 62.0887, 66.7049] };
  const data: Dataset = {
    name: 'CIFAR-10',
    origin,
    length,
    shape: [32, 32, 3],
    inputs,
    normalize,
    classes: CLASSES,
    targets,
  };
  checkDataset(data);
  return data;
}

/**
 * CIFAR-10 (Krizhevsky 2009): 50000 + 10000 photographs, uint8 [32, 32, 3], 10 classes. Files
 * `cifar-10-batches-bin/data_batch_1.bin` … `5`, `test_batch.bin` (the binary version; plain or gzip): from the folder,
 * else the cache, else downloaded (170 MB; length and MD5 checked). `normalize` holds each channel's mean and
 * standard deviation.
 *
 * @throws FrugalError `DATA` if the files cannot be had, or one is damaged; `CONFIG` for a wrong option
 */
export async function cifar10(options: DataOptions = {}): Promise<Split> {
  checkDataOptions('cifar10', options);
  const found = await locate(SOURCE, options);
  if ('missing' in found) throw unavailable(SOURCE, found);
  return {
    train: await readPart(found.path, TRAIN, found.origin),
    test: await readPart(found.path, TEST, found.origin),
  };
}
