import { dataError } from './source.js';

/** The contents of an IDX file: its shape and its bytes, row after row (a view, not a copy). */
export interface Idx {
  /** Length of each axis. */
  readonly shape: readonly number[];
  /** The values. */
  readonly values: Uint8Array;
}

const AGAIN = 'The file is damaged or another one: delete it and get it again.';

/**
 * Reads an IDX file of unsigned bytes: 0, 0, type 8, number of axes, each axis as 32 bits big-endian, then the values
 * (Y. LeCun, "The MNIST database", section file formats). Nothing is allocated by what the header says: its product is
 * compared with the bytes that are there.
 *
 * @param bytes - the file, decompressed
 * @param file - its name, for errors
 * @param trailing - number of axes minus one and their lengths: [] for labels, [28, 28] for MNIST's images
 * @throws FrugalError `DATA` on another magic number, type, shape or length
 */
export function parseIdx(bytes: Uint8Array, file: string, trailing: readonly number[]): Idx {
  const rank = trailing.length + 1;
  const header = 4 + 4 * rank;
  if (bytes.length < header) throw dataError(file, `an IDX header of ${header} bytes`, `${bytes.length} bytes`, AGAIN);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magic = view.getUint32(0);
  const expected = 0x0800 + rank;
  if (magic !== expected) {
    const hex = (n: number): string => `0x${n.toString(16).padStart(8, '0')}`;
    throw dataError(file, `magic number ${hex(expected)} (unsigned bytes, ${rank} axes)`, hex(magic), AGAIN);
  }
  const shape = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis));
  const fits = trailing.every((size, axis) => shape[axis + 1] === size);
  if (!fits || shape[0] === 0) {
    throw dataError(file, `shape [${['n', ...trailing].join(', ')}] with n > 0`, `[${shape.join(', ')}]`, AGAIN);
  }
  const length = shape.reduce((a, b) => a * b, 1);
  if (bytes.length !== header + length) {
    throw dataError(
      file,
      `${header} + ${length} bytes for shape [${shape.join(', ')}]`,
      `${bytes.length} bytes`,
      AGAIN,
    );
  }
  // A plain Uint8Array: a Buffer's slice() does not copy.
  return { shape, values: new Uint8Array(bytes.buffer, bytes.byteOffset + header, length) };
}

/** Throws `DATA` if a label is not below `classes`. */
export function checkLabels(labels: Uint8Array, file: string, classes: number): void {
  const at = labels.findIndex((label) => label >= classes);
  if (at >= 0) throw dataError(file, `labels in [0, ${classes})`, `${labels[at] ?? '?'} for example ${at}`, AGAIN);
}
