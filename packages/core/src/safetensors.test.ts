import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrugalError } from './errors.js';
import { decodeSafetensors, encodeSafetensors, type NamedArray } from './safetensors.js';

const arrays = new Map([
  ['a', { shape: [2, 2], values: Float32Array.of(1, 2, 3, 4) }],
  ['scalar', { shape: [], values: Float32Array.of(-0.5) }],
]);

const doubles = new Map<string, NamedArray>([
  ['count', { shape: [3], values: Float64Array.of(0.1, -0, 2 ** 53 - 1) }],
  // Behind a single float the doubles start at an odd place.
  ['half', { shape: [1], values: Float32Array.of(0.5) }],
  ['rate', { shape: [2, 1], values: Float64Array.of(5e-324, 1 / 3) }],
]);

describe('safetensors', () => {
  it('writes the published layout: length, padded JSON, little-endian values', () => {
    const bytes = encodeSafetensors(arrays);
    const length = Number(bytes.readBigUInt64LE(0));
    expect(length % 8).toBe(0);
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as unknown;
    expect(header).toEqual({
      a: { dtype: 'F32', shape: [2, 2], data_offsets: [0, 16] },
      scalar: { dtype: 'F32', shape: [], data_offsets: [16, 20] },
    });
    expect(bytes.readFloatLE(8 + length + 4)).toBe(2);
  });

  it('gives back what was written', () => {
    expect(decodeSafetensors(encodeSafetensors(arrays), 'test')).toEqual(arrays);
  });

  it('keeps doubles to the bit, also where they are not aligned, and views of a part', () => {
    const bytes = encodeSafetensors(doubles);
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + Number(bytes.readBigUInt64LE(0)))) as unknown;
    expect(header).toEqual({
      count: { dtype: 'F64', shape: [3], data_offsets: [0, 24] },
      half: { dtype: 'F32', shape: [1], data_offsets: [24, 28] },
      rate: { dtype: 'F64', shape: [2, 1], data_offsets: [28, 44] },
    });
    // At any place of a bigger buffer.
    for (const offset of [0, 1, 4]) {
      const shifted = Buffer.concat([Buffer.alloc(offset), bytes]).subarray(offset);
      const back = decodeSafetensors(shifted, 'test');
      for (const [name, { shape, values }] of doubles) {
        const own = back.get(name)!;
        expect(own.shape).toEqual(shape);
        expect(own.values.constructor).toBe(values.constructor);
        expect([...own.values].every((v, i) => Object.is(v, values[i]))).toBe(true);
      }
    }
    const part = { shape: [2], values: Float64Array.of(1, 2, 3, 4).subarray(1, 3) };
    expect([...decodeSafetensors(encodeSafetensors(new Map([['part', part]])), 'test').get('part')!.values]).toEqual([
      2, 3,
    ]);
  });

  it('refuses types that it does not know, and extents of another type', () => {
    const withHeader = (entry: object): Buffer => {
      const json = Buffer.from(JSON.stringify({ a: entry }));
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(json.length));
      return Buffer.concat([length, json, Buffer.alloc(16)]);
    };
    const read = (entry: object) => () => decodeSafetensors(withHeader(entry), 'file');
    expect(read({ dtype: 'F64', shape: [2], data_offsets: [0, 16] })()).toEqual(
      new Map([['a', { shape: [2], values: new Float64Array(2) }]]),
    );
    expect(read({ dtype: 'BF16', shape: [2], data_offsets: [0, 4] })).toThrow(/a has type BF16, expected F32 or F64/);
    expect(read({ dtype: 'F64', shape: [4], data_offsets: [0, 16] })).toThrow(/the extent of a does not fit/);
    expect(read({ dtype: 'F32', shape: [2], data_offsets: [0, 16] })).toThrow(/the extent of a does not fit/);
  });

  it('refuses any damage with a CHECKPOINT error that names the file, and never hangs or runs out of memory', () => {
    const good = encodeSafetensors(new Map<string, NamedArray>([...arrays, ...doubles]));
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.integer({ min: 0, max: 255 }), fc.nat(good.length), (at, value, cut) => {
        const bytes = Buffer.from(good.subarray(0, cut));
        if (at < bytes.length) bytes[at] = value;
        try {
          decodeSafetensors(bytes, 'file.safetensors');
        } catch (error) {
          expect(FrugalError.is(error, 'CHECKPOINT')).toBe(true);
          expect((error as Error).message).toContain('file.safetensors');
        }
      }),
      { numRuns: 500, seed: 1 },
    );
    expect(() => decodeSafetensors(good.subarray(0, good.length - 1), 'x')).toThrow('extent');
    expect(() => decodeSafetensors(Buffer.alloc(4), 'x')).toThrow('4 bytes');
  });
});
