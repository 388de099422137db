import { randomUUID } from 'node:crypto';
import { type FileHandle, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { dataError, exists, reason } from './source.js';

const unzip = promisify(gunzip);

/** Decompresses gzip; stops as soon as more than `limit` bytes come out. Throws `DATA`. */
export async function decompress(bytes: Uint8Array, file: string, limit: number): Promise<Uint8Array> {
  try {
    return await unzip(bytes, { maxOutputLength: limit });
  } catch (error) {
    throw dataError(
      file,
      `a complete gzip file of at most ${limit} bytes inside`,
      `${bytes.length} bytes that do not decompress (${reason(error)})`,
      'The file is damaged: delete it and get it again.',
      error,
    );
  }
}

/**
 * Reads `path`.gz or, if there is none, `path`. A file of more than `limit` bytes is refused before it is read. Throws
 * `DATA`.
 */
export async function readMaybeGzip(path: string, limit: number): Promise<{ file: string; bytes: Uint8Array }> {
  const zipped = await exists(`${path}.gz`);
  const file = zipped ? `${path}.gz` : path;
  const bytes = await readBounded(file, limit);
  return { file, bytes: zipped ? await decompress(bytes, file, limit) : bytes };
}

/** Reads a file of at most `limit` bytes. Throws `DATA`. */
export async function readBounded(file: string, limit: number): Promise<Uint8Array> {
  const remedy = 'Check the path and its permissions.';
  const failed = (error: unknown): never => {
    throw dataError(file, 'a readable file', reason(error), remedy, error);
  };
  const { size } = await stat(file).catch(failed);
  if (size > limit)
    throw dataError(file, `at most ${limit} bytes`, `${size} bytes`, 'It is not a file of this data set.');
  return readFile(file).catch(failed);
}

/**
 * Writes a file so that it is either there in full or not at all: into a temporary file beside it, flushed to the disk,
 * then renamed. Two processes may do it at once.
 */
export async function writeAtomically(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`;
  const handle = await open(temporary, 'wx');
  try {
    try {
      await write(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** The regular files of a tar archive (POSIX ustar), by base name; views into `bytes`. Throws `DATA`. */
export function untar(bytes: Uint8Array, file: string): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  const text = (from: number, length: number): string =>
    Buffer.from(bytes.buffer, bytes.byteOffset + from, length)
      .toString('latin1')
      .replace(/\0.*$/s, '')
      .trim();
  for (let at = 0; at + 512 <= bytes.length && bytes[at] !== 0; ) {
    const size = Number.parseInt(text(at + 124, 12), 8);
    let sum = 8 * 32;
    for (let i = 0; i < 512; i++) if (i < 148 || i >= 156) sum += bytes[at + i] as number;
    const intact = sum === Number.parseInt(text(at + 148, 8), 8);
    if (!intact || !(size >= 0) || at + 512 + size > bytes.length) {
      const received = intact ? `${size} bytes where ${bytes.length - at - 512} are left` : 'a damaged header';
      throw dataError(
        file,
        `a tar member at byte ${at}`,
        received,
        'The archive is damaged: delete it and get it again.',
      );
    }
    const type = text(at + 156, 1);
    if (type === '' || type === '0') files.set(basename(text(at, 100)), bytes.subarray(at + 512, at + 512 + size));
    at += 512 + 512 * Math.ceil(size / 512);
  }
  return files;
}
