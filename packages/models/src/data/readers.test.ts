import { gzipSync } from 'node:zlib';
import { FrugalError } from '@frugal/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cifarFile, idx, images, labels, tar } from '../testing/files.js';
import { parseCifar } from './cifar.js';
import { decompress, untar } from './file.js';
import { checkLabels, parseIdx } from './idx.js';

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Damages of a file: cut, one bit flipped, a few bytes replaced, or bytes added. */
const damaged = (whole: Uint8Array): fc.Arbitrary<Uint8Array> => {
  const at = fc.nat(whole.length - 1);
  return fc.oneof(
    fc.uint8Array({ maxLength: 4000 }),
    at.map((end) => whole.slice(0, end)),
    fc.tuple(at, fc.nat(7)).map(([i, bit]) => whole.map((byte, j) => (j === i ? byte ^ (1 << bit) : byte))),
    fc
      .tuple(fc.nat(Math.min(19, whole.length - 1)), fc.nat(255))
      .map(([i, b]) => whole.map((byte, j) => (j === i ? b : byte))),
    fc.uint8Array({ minLength: 1, maxLength: 50 }).map((more) => Uint8Array.from([...whole, ...more])),
  );
};

/** Runs a reader; anything thrown must be a FrugalError of code DATA that names the file. */
const refusesWell = async (read: () => unknown): Promise<void> => {
  try {
    await read();
  } catch (error) {
    if (!FrugalError.is(error, 'DATA')) throw error;
    expect(error.message).toMatch(/^f: expected .+ but received .+\./s);
  }
};

describe('parseIdx', () => {
  it('reads images and labels as views', () => {
    const file = images(3);
    const read = parseIdx(file, 'f', [28, 28]);
    expect(read.shape).toEqual([3, 28, 28]);
    expect(read.values.length).toBe(3 * 784);
    expect(read.values[784 + 5]).toBe(6);
    expect(read.values.buffer).toBe(file.buffer);
    expect([...parseIdx(labels(12), 'f', []).values]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
  });

  it('names file, expectation, reception and remedy', () => {
    const cases: [Uint8Array, readonly number[], string][] = [
      [images(2).subarray(0, 10), [28, 28], 'f: expected an IDX header of 16 bytes but received 10 bytes.'],
      [images(2), [], 'f: expected magic number 0x00000801 (unsigned bytes, 1 axes) but received 0x00000803.'],
      [
        images(2).subarray(0, 1000),
        [28, 28],
        'f: expected 16 + 1568 bytes for shape [2, 28, 28] but received 1000 bytes.',
      ],
      [Buffer.concat([labels(2), Buffer.alloc(1)]), [], 'f: expected 8 + 2 bytes for shape [2] but received 11 bytes.'],
      [
        idx([1, 27, 28], Buffer.alloc(756)),
        [28, 28],
        'f: expected shape [n, 28, 28] with n > 0 but received [1, 27, 28].',
      ],
      [idx([0, 28, 28], []), [28, 28], 'f: expected shape [n, 28, 28] with n > 0 but received [0, 28, 28].'],
    ];
    for (const [bytes, trailing, message] of cases) {
      expect(() => parseIdx(bytes, 'f', trailing)).toThrow(`${message} The file is damaged`);
    }
  });

  it('refuses a header that claims 3 TB without allocating them', () => {
    const lie = images(1);
    lie.writeUInt32BE(0xffffffff, 4);
    expect(() => parseIdx(lie, 'f', [28, 28])).toThrow('16 + 3367254359280 bytes for shape [4294967295, 28, 28]');
  });

  it('refuses labels out of range', () => {
    expect(() => checkLabels(Uint8Array.of(1, 9, 10), 'f', 10)).toThrow(
      'f: expected labels in [0, 10) but received 10 for example 2.',
    );
  });

  it('meets damaged files with DATA only', async () => {
    await fc.assert(fc.asyncProperty(damaged(images(2)), (bytes) => refusesWell(() => parseIdx(bytes, 'f', [28, 28]))));
    await fc.assert(fc.asyncProperty(damaged(labels(20)), (bytes) => refusesWell(() => parseIdx(bytes, 'f', []))));
  });
});

describe('parseCifar', () => {
  it('turns planes into channels last', () => {
    const { inputs, targets } = parseCifar(cifarFile(2, 3), 'f');
    expect([...targets]).toEqual([3, 4]);
    expect([...inputs.subarray(0, 6)]).toEqual([0, 1, 2, 1, 2, 3]);
    expect([...inputs.subarray(3072 + 3 * 255, 3072 + 3 * 256)]).toEqual([255, 0, 1]);
  });

  it('refuses a wrong length and a wrong label', () => {
    expect(() => parseCifar(cifarFile(2).subarray(1), 'f')).toThrow(
      'f: expected a multiple of 3073 bytes (label, red, green, blue) but received 6145 bytes.',
    );
    expect(() => parseCifar(new Uint8Array(0), 'f')).toThrow('received 0 bytes');
    expect(() => parseCifar(new Uint8Array(3073).fill(10), 'f')).toThrow(
      'labels in [0, 10) but received 10 for example 0',
    );
  });

  it('meets damaged files with DATA only', async () => {
    await fc.assert(fc.asyncProperty(damaged(cifarFile(2)), (bytes) => refusesWell(() => parseCifar(bytes, 'f'))));
  });
});

describe('decompress', () => {
  it('gives back what was packed', async () => {
    const packed = gzipSync(images(3));
    expect(Buffer.from(await decompress(packed, 'f', 2 ** 20)).equals(images(3))).toBe(true);
  });

  it('stops at the limit: 64 MB of zeros in 64 kB', async () => {
    const bomb = gzipSync(Buffer.alloc(2 ** 26));
    expect(bomb.length).toBeLessThan(2 ** 17);
    await expect(decompress(bomb, 'f', 2 ** 20)).rejects.toThrow(
      'f: expected a complete gzip file of at most 1048576 bytes inside',
    );
  });

  it('meets damaged files with DATA only', async () => {
    const read = async (bytes: Uint8Array): Promise<unknown> =>
      parseIdx(await decompress(bytes, 'f', 2 ** 20), 'f', [28, 28]);
    await fc.assert(fc.asyncProperty(damaged(gzipSync(images(2))), (bytes) => refusesWell(() => read(bytes))));
  });
});

describe('untar', () => {
  const archive = tar({
    'dir/a.bin': bytesOf('one'),
    'dir/b.bin': new Uint8Array(512).fill(7),
    'dir/empty': new Uint8Array(0),
  });

  it('reads the regular files by base name', () => {
    const files = untar(archive, 'f');
    expect([...files.keys()]).toEqual(['a.bin', 'b.bin', 'empty']);
    expect(new TextDecoder().decode(files.get('a.bin'))).toBe('one');
    expect([...(files.get('b.bin') ?? [])]).toEqual(Array.from({ length: 512 }, () => 7));
  });

  it('refuses a cut archive and a damaged header', () => {
    expect(() => untar(archive.subarray(0, 514), 'f')).toThrow(
      'f: expected a tar member at byte 0 but received 3 bytes where 2 are left.',
    );
    const flipped = Uint8Array.from(archive);
    flipped[3] = 65;
    expect(() => untar(flipped, 'f')).toThrow('received a damaged header');
  });

  it('meets damaged archives with DATA only', async () => {
    await fc.assert(fc.asyncProperty(damaged(archive), (bytes) => refusesWell(() => untar(bytes, 'f'))));
  });
});
