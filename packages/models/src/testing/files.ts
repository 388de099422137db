import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';

/** Runs `body` with a new temporary folder, and removes it. */
export async function inFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'frugal-models-'));
  try {
    return await body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Writes a file and the folders above it. */
export function put(path: string, bytes: Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, bytes);
}

/** An IDX file of unsigned bytes. */
export function idx(shape: readonly number[], values: ArrayLike<number>): Buffer {
  const header = Buffer.alloc(4 + 4 * shape.length);
  header.writeUInt32BE(0x0800 + shape.length, 0);
  for (const [axis, size] of shape.entries()) header.writeUInt32BE(size, 4 + 4 * axis);
  return Buffer.concat([header, Uint8Array.from(values)]);
}

/** Image i holds i, i+1, … modulo 256. */
export const images = (count: number): Buffer =>
  idx(
    [count, 28, 28],
    Uint8Array.from({ length: count * 784 }, (_, i) => Math.floor(i / 784) + (i % 784)),
  );

/** Labels 0, 1, …, 9, 0, … */
export const labels = (count: number): Buffer =>
  idx(
    [count],
    Uint8Array.from({ length: count }, (_, i) => i % 10),
  );

/** A small data set in MNIST's files: 12 + 5 examples; the labels are stored without gzip. */
export function putMnist(folder: string, set = 'mnist'): void {
  put(join(folder, set, 'train-images-idx3-ubyte.gz'), gzipSync(images(12)));
  put(join(folder, set, 'train-labels-idx1-ubyte'), labels(12));
  put(join(folder, set, 't10k-images-idx3-ubyte.gz'), gzipSync(images(5)));
  put(join(folder, set, 't10k-labels-idx1-ubyte'), labels(5));
}

/**
 * A CIFAR file: example i has label (i + shift) mod 10; red, green and blue of place p are p, p + 1 and p + 2 modulo
 * 256.
 */
export function cifarFile(count: number, shift = 0): Buffer {
  const row = (i: number): Uint8Array =>
    Uint8Array.from({ length: 3073 }, (_, at) =>
      at === 0 ? (i + shift) % 10 : ((at - 1) % 1024) + Math.floor((at - 1) / 1024),
    );
  return Buffer.concat(Array.from({ length: count }, (_, i) => row(i)));
}

/** A tar archive of regular files. */
export function tar(files: Readonly<Record<string, Uint8Array>>): Buffer {
  const members = Object.entries(files).map(([name, bytes]) => {
    const header = Buffer.alloc(512);
    header.write(name, 0);
    header.write('0000644\0', 100);
    header.write(`${bytes.length.toString(8).padStart(11, '0')}\0`, 124);
    header.write('        0', 148);
    header.write('ustar\x0000', 257);
    const sum = header.reduce((a, b) => a + b, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    return Buffer.concat([header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
  });
  return Buffer.concat([...members, Buffer.alloc(1024)]);
}
