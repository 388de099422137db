import { join } from 'node:path';
import { checkDataset, type Dataset } from '@frugal/core';
import { download, type Remote } from './download.js';
import { readMaybeGzip } from './file.js';
import { checkLabels, parseIdx } from './idx.js';
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

/** More than any file of these sets holds (47 MB); what is longer is refused unread. */
const LIMIT = 2 ** 26;
const DIGITS = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];
const CLOTHES = [
  'T-shirt/top',
  'trouser',
  'pullover',
  'dress',
  'coat',
  'sandal',
  'shirt',
  'sneaker',
  'bag',
  'ankle boot',
];
const FILES = [
  'train-images-idx3-ubyte',
  'train-labels-idx1-ubyte',
  't10k-images-idx3-ubyte',
  't10k-labels-idx1-ubyte',
] as const;

interface IdxSource extends Source {
  readonly normalize: { readonly mean: readonly number[]; readonly std: readonly number[] };
  readonly classes: readonly string[];
}

/** Fetches each file as .gz; `facts` holds its length and MD5. */
const fetcher =
  (bases: readonly string[], facts: readonly (readonly [bytes: number, md5: string])[]): Source['fetch'] =>
  async (folder, log) => {
    let host = '';
    for (const [i, file] of FILES.entries()) {
      const [bytes, md5] = facts[i] as readonly [number, string];
      const remote: Remote = { urls: bases.map((base) => `${base}${file}.gz`), bytes, md5 };
      // A file that is there was checked when it came: an interrupted download goes on with the next one.
      if (!(await exists(join(folder, `${file}.gz`)))) host = await download(join(folder, `${file}.gz`), remote, log);
    }
    return host;
  };

/** MNIST's files. Mean and standard deviation are those of the training images. */
export const MNIST: IdxSource = {
  name: 'MNIST',
  folder: 'mnist',
  files: FILES,
  classes: DIGITS,
  normalize: { mean: [33.3184], std: [78.5675] },
  fetch: fetcher(
    ['https://storage.googleapis.com/cvdf-datasets/mnist/', 'https://ossci-datasets.s3.amazonaws.com/mnist/'],
    [
      [9912422, 'f68b3c2dcbeaaa9fbdd348bbdeb94873'],
      [28881, 'd53e105ee54ea40749a09fcbcd1e9432'],
      [1648877, '9fb629c4189551a2d022fa330f9573f3'],
      [4542, 'ec29112dd5afa0611ce80d1b7f02629c'],
    ],
  ),
};

const FASHION: IdxSource = {
  name: 'Fashion-MNIST',
  folder: 'fashion-mnist',
  files: FILES,
  classes: CLOTHES,
  normalize: { mean: [72.9404], std: [90.0212] },
  fetch: fetcher(
    [
      'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
      'https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/',
    ],
    [
      [26421880, '8d4fb7e6c68d591d4c3dfef9ec88bf0d'],
      [29515, '25c81989df183df01b3e8a0aad5dffbe'],
      [4422102, 'bef4ecab320f06d8554ea6380940ec79'],
      [5148, 'bb300cfdad3c16e7a12a480ee83cd310'],
    ],
  ),
};

async function readPart(source: IdxSource, path: string, part: 'train' | 't10k', origin: string): Promise<Dataset> {
  const images = await readMaybeGzip(join(path, `${part}-images-idx3-ubyte`), LIMIT);
  const labels = await readMaybeGzip(join(path, `${part}-labels-idx1-ubyte`), LIMIT);
  const { values: inputs } = parseIdx(images.bytes, images.file, [28, 28]);
  const { values: targets } = parseIdx(labels.bytes, labels.file, []);
  const length = inputs.length / 784;
  if (targets.length !== length) {
    const remedy = 'The two files do not belong together: delete both and get them again.';
    throw dataError(labels.file, `${length} labels, one for each image of ${images.file}`, `${targets.length}`, remedy);
  }
  checkLabels(targets, labels.file, source.classes.length);
  const { name, normalize, classes } = source;
  const data: Dataset = { name, origin, length, shape: [28, 28, 1], inputs, normalize, classes, targets };
  checkDataset(data);
  return data;
}

/** Reads the four files of an IDX data set. Throws `DATA`. */
export async function readIdxSplit(source: IdxSource, path: string, origin: string): Promise<Split> {
  return { train: await readPart(source, path, 'train', origin), test: await readPart(source, path, 't10k', origin) };
}

async function load(owner: string, source: IdxSource, options: DataOptions): Promise<Split> {
  checkDataOptions(owner, options);
  const found = await locate(source, options);
  if ('missing' in found) throw unavailable(source, found);
  return readIdxSplit(source, found.path, found.origin);
}

/**
 * MNIST (LeCun, Bottou, Bengio and Haffner 1998): 60000 + 10000 handwritten digits, uint8 [28, 28, 1], 10 classes.
 * Files `mnist/train-images-idx3-ubyte.gz` and so on, plain or gzip: from the folder, else the cache, else downloaded
 * (11.6 MB; length and MD5 checked). `normalize` holds the mean 33.32 and the standard deviation 78.57 of all pixels.
 *
 * @throws FrugalError `DATA` if the files cannot be had, or one is damaged; `CONFIG` for a wrong option
 */
export async function mnist(options: DataOptions = {}): Promise<Split> {
  return load('mnist', MNIST, options);
}

/**
 * Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747): 60000 + 10000 pictures of clothes, uint8
 * [28, 28, 1], 10 classes. Files as MNIST's, in `fashion-mnist/` (30.9 MB to download).
 *
 * @throws FrugalError `DATA` if the files cannot be had, or one is damaged; `CONFIG` for a wrong option
 */
export async function fashionMnist(options: DataOptions = {}): Promise<Split> {
  return load('fashionMnist', FASHION, options);
}
