import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrugalError } from './errors.js';
import { decodeSafetensors, encodeSafetensors } from './safetensors.js';

const arrays = new Map([
  ['a', { shape: [2, 2], values: Float32Array.of(1, 2, 3, 4) }],
  ['scalar', { shape: [], values: Float32Array.of(-0.5) }],
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

  it('refuses any damage with a CHECKPOINT error that names the file, and never hangs or runs out of memory', () => {
    const good = encodeSafetensors(arrays);
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
