import { FrugalError } from './errors.js';

/** A named array of floats with its shape. */
export interface NamedArray {
  /** Shape; empty for a scalar. */
  readonly shape: readonly number[];
  /** Values, row-major. */
  readonly values: Float32Array | Float64Array;
}

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

const TYPES: Readonly<Record<string, typeof Float32Array | typeof Float64Array>> = {
  F32: Float32Array,
  F64: Float64Array,
};

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Writes arrays in the safetensors format: 8 bytes of header length, a JSON header, then the values, little-endian. */
export function encodeSafetensors(arrays: ReadonlyMap<string, NamedArray>): Buffer {
  const header: Record<string, Entry> = {};
  let offset = 0;
  for (const [name, { shape, values }] of arrays) {
    const dtype = values instanceof Float64Array ? 'F64' : 'F32';
    header[name] = { dtype, shape, data_offsets: [offset, offset + values.byteLength] };
    offset += values.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const bodies = [...arrays.values()].map(({ values }) =>
    Buffer.from(values.buffer, values.byteOffset, values.byteLength),
  );
  return Buffer.concat([length, padded, ...bodies]);
}

const corrupt = (source: string, what: string): never => {
  throw new FrugalError(
    'CHECKPOINT',
    `${source} is not a readable safetensors file: ${what}. Delete it and resume from an older one.`,
  );
};

function readHeader(bytes: Buffer, source: string): { header: Record<string, Entry>; start: number } {
  if (bytes.length < 8) corrupt(source, `it has ${bytes.length} bytes, fewer than its length field`);
  const length = Number(bytes.readBigUInt64LE(0));
  const start = 8 + length;
  if (start > bytes.length) corrupt(source, `its header claims ${length} bytes, the file has ${bytes.length}`);
  try {
    const header = JSON.parse(bytes.toString('utf8', 8, start)) as Record<string, Entry>;
    delete header['__metadata__'];
    return { header, start };
  } catch {
    return corrupt(source, 'its header is not JSON');
  }
}

/**
 * Reads a safetensors file of 32-bit and 64-bit floats.
 *
 * @throws {@link FrugalError} `CHECKPOINT`, naming `source`, for anything malformed
 */
export function decodeSafetensors(bytes: Buffer, source: string): Map<string, NamedArray> {
  const { header, start } = readHeader(bytes, source);
  const arrays = new Map<string, NamedArray>();
  for (const [name, entry] of Object.entries(header)) {
    const [from, to] = Array.isArray(entry?.data_offsets)
      ? entry.data_offsets
      : corrupt(source, `${name} has no offsets`);
    const type = TYPES[entry.dtype] ?? corrupt(source, `${name} has type ${entry.dtype}, expected F32 or F64`);
    const fits = Number.isInteger(from) && Number.isInteger(to) && from >= 0 && start + to <= bytes.length;
    if (!fits || !Array.isArray(entry.shape) || to - from !== type.BYTES_PER_ELEMENT * product(entry.shape))
      corrupt(source, `the extent of ${name} does not fit its shape or the file`);
    const values = new type((to - from) / type.BYTES_PER_ELEMENT);
    Buffer.from(values.buffer).set(bytes.subarray(start + from, start + to));
    arrays.set(name, { shape: entry.shape, values });
  }
  return arrays;
}
