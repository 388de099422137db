import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { cifarFile, images, inFolder, labels, put, putMnist, tar } from '../testing/files.js';
import { anyDigits } from './any-digits.js';
import { cifar10, unpackCifar } from './cifar.js';
import { fashionMnist, mnist } from './mnist.js';

const given = process.env['FRUGAL_DATA'] ?? '';
let lines: string[] = [];
const quiet = { download: false, log: (line: string): void => void lines.push(line) };

beforeEach(() => {
  lines = [];
  vi.stubEnv('FRUGAL_DATA', '');
});
afterEach(() => {
  vi.unstubAllEnvs();
});

describe('mnist', () => {
  it('reads gzip and plain files from the folder', () =>
    inFolder(async (folder) => {
      putMnist(folder);
      const { train, test } = await mnist({ folder, ...quiet });
      expect(train).toMatchObject({
        name: 'MNIST',
        length: 12,
        shape: [28, 28, 1],
        origin: `folder ${join(folder, 'mnist')}`,
      });
      expect(train.inputs).toBeInstanceOf(Uint8Array);
      expect([train.inputs[0], train.inputs[784], train.targets[11]]).toEqual([0, 1, 1]);
      expect(train.classes).toHaveLength(10);
      expect(test.length).toBe(5);
      expect(lines).toEqual([]);
    }));

  it('finds the folder by FRUGAL_DATA, and the cache by XDG_CACHE_HOME', () =>
    inFolder(async (folder) => {
      putMnist(join(folder, 'data'));
      putMnist(join(folder, 'frugal'), 'fashion-mnist');
      vi.stubEnv('FRUGAL_DATA', join(folder, 'data'));
      vi.stubEnv('XDG_CACHE_HOME', folder);
      expect((await mnist(quiet)).train.origin).toBe(`folder ${join(folder, 'data', 'mnist')}`);
      const fashion = await fashionMnist(quiet);
      expect(fashion.train.origin).toBe(`cache ${join(folder, 'frugal', 'fashion-mnist')}`);
      expect(fashion.train.classes?.[9]).toBe('ankle boot');
      expect(lines).toHaveLength(1);
    }));

  it('says where it looked and what to do', () =>
    inFolder(async (folder) => {
      put(join(folder, 'mnist', 'train-images-idx3-ubyte.gz'), gzipSync(images(2)));
      const failed = mnist({ folder, cache: join(folder, 'cache'), ...quiet });
      await expect(failed).rejects.toMatchObject({ code: 'DATA' });
      await expect(failed).rejects.toThrow(
        /mnist lacks train-labels-idx1-ubyte, t10k-images.+switched off\. Put .+FRUGAL_DATA\./s,
      );
    }));

  it('refuses damaged files by name, and never replaces them', () =>
    inFolder(async (folder) => {
      const expectRefusal = async (file: string, bytes: Uint8Array, message: string): Promise<void> => {
        putMnist(folder);
        put(join(folder, 'mnist', file), bytes);
        for (const load of [mnist, anyDigits]) {
          await expect(load({ folder, ...quiet })).rejects.toMatchObject({
            code: 'DATA',
            message: expect.stringContaining(message) as string,
          });
        }
      };
      const file = 't10k-images-idx3-ubyte.gz';
      await expectRefusal(file, gzipSync(images(5)).subarray(0, 50), `${file}: expected a complete gzip file`);
      await expectRefusal(file, images(5), `${file}: expected a complete gzip file`);
      await expectRefusal(file, gzipSync(images(4)), 't10k-labels-idx1-ubyte: expected 4 labels');
      await expectRefusal(file, gzipSync(labels(50)), 'magic number 0x00000803');
      putMnist(folder);
      const bad = labels(5);
      bad[9] = 12;
      await expectRefusal('t10k-labels-idx1-ubyte', bad, 'expected labels in [0, 10) but received 12 for example 1');
    }));

  it('refuses a file far too long without reading it', () =>
    inFolder(async (folder) => {
      putMnist(folder);
      put(join(folder, 'mnist', 'train-labels-idx1-ubyte'), new Uint8Array(2 ** 26 + 1));
      await expect(mnist({ folder, ...quiet })).rejects.toThrow('at most 67108864 bytes but received 67108865 bytes');
    }));

  it('refuses wrong options', async () => {
    await expect(mnist({ folder: '' })).rejects.toMatchObject({ code: 'CONFIG' });
    await expect(mnist({ dowload: true } as object)).rejects.toThrow('Check the spelling');
    await expect(anyDigits({ ...quiet, cache: 3 } as object)).rejects.toThrow(
      'expected cache to be a string but received 3',
    );
  });
});

describe('cifar10', () => {
  it('joins the five training files', () =>
    inFolder(async (folder) => {
      for (let i = 1; i <= 5; i++) put(join(folder, 'cifar-10-batches-bin', `data_batch_${i}.bin`), cifarFile(2, i));
      put(join(folder, 'cifar-10-batches-bin', 'test_batch.bin.gz'), gzipSync(cifarFile(3)));
      const { train, test } = await cifar10({ folder, ...quiet });
      expect(train).toMatchObject({ name: 'CIFAR-10', length: 10, shape: [32, 32, 3] });
      expect([...train.targets]).toEqual([1, 2, 2, 3, 3, 4, 4, 5, 5, 6]);
      expect([...train.inputs.subarray(9 * 3072, 9 * 3072 + 4)]).toEqual([0, 1, 2, 1]);
      expect(test.length).toBe(3);
    }));

  it('unpacks the archive, whole files only', () =>
    inFolder(async (folder) => {
      const archive = join(folder, 'a.tar.gz');
      put(archive, gzipSync(tar({ 'cifar/test_batch.bin': cifarFile(1), 'cifar/readme.html': new Uint8Array(3) })));
      await unpackCifar(archive, folder, ['test_batch.bin']);
      expect(readdirSync(folder).sort()).toEqual(['a.tar.gz', 'test_batch.bin']);
      await expect(unpackCifar(archive, folder)).rejects.toThrow('expected a member data_batch_1.bin but found none');
    }));
});

describe('downloading', () => {
  const refuse = vi.fn(() => Promise.reject(new Error('no network here')));
  beforeEach(() => {
    refuse.mockClear();
    vi.stubGlobal('fetch', refuse);
  });
  afterEach(() => {
    vi.unstubAllGlobals();
  });

  it('tries every address, then says why and what to do', () =>
    inFolder(async (cache) => {
      const failed = mnist({ cache, log: quiet.log });
      await expect(failed).rejects.toMatchObject({ code: 'DATA' });
      await expect(failed).rejects.toThrow(
        /googleapis.+no network here.+amazonaws.+no network here\. Put train-images/,
      );
      expect(refuse).toHaveBeenCalledTimes(2);
      expect(lines).toHaveLength(2);
    }));

  it('goes on after an interruption: files that came are not fetched again', () =>
    inFolder(async (cache) => {
      put(join(cache, 'mnist', 'train-images-idx3-ubyte.gz'), gzipSync(images(2)));
      await expect(mnist({ cache, log: quiet.log })).rejects.toThrow('mnist lacks train-labels');
      expect(refuse.mock.calls.map(String).join()).not.toContain('train-images');
      const files = [1, 2, 3, 4, 5].map((i) => [`data_batch_${i}.bin`, cifarFile(1, i)] as const);
      const archive = tar(Object.fromEntries([...files, ['test_batch.bin', cifarFile(2)]]));
      put(join(cache, 'cifar-10-batches-bin', 'cifar-10-binary.tar.gz'), gzipSync(archive));
      refuse.mockClear();
      const { train, test } = await cifar10({ cache, log: quiet.log });
      expect([train.length, test.length, train.origin]).toEqual([5, 2, 'download from www.cs.toronto.edu']);
      expect(readdirSync(join(cache, 'cifar-10-batches-bin'))).toHaveLength(6);
      expect(refuse).not.toHaveBeenCalled();
    }));

  it('draws digits in place of MNIST', () =>
    inFolder(async (cache) => {
      const { train } = await anyDigits({ cache, train: 10, test: 10, log: quiet.log });
      expect(train.name).toBe('procedural digits');
    }));
});

describe('anyDigits', () => {
  it('takes MNIST where it is', () =>
    inFolder(async (folder) => {
      putMnist(folder);
      const { train } = await anyDigits({ folder, train: 20, ...quiet });
      expect(train.name).toBe('MNIST');
      expect(lines.at(-1)).toContain('Data: MNIST, 12 + 5 examples, folder ');
    }));

  it('draws digits otherwise, and says so', () =>
    inFolder(async (folder) => {
      const { train, test } = await anyDigits({ cache: folder, train: 20, test: 10, seed: 4, ...quiet });
      expect([train.name, train.length, test.length]).toEqual(['procedural digits', 20, 10]);
      expect(train.origin).toContain('seed 4');
      expect(lines[0]).toMatch(/MNIST was not found: .+Using procedural digits instead\./);
    }));
});

describe('the real files', () => {
  const moments = (bytes: ArrayLike<number>, channels: number): { mean: number[]; std: number[] } => {
    const sum = new Float64Array(channels);
    const squares = new Float64Array(channels);
    for (let i = 0, c = 0; i < bytes.length; i++, c = (c + 1) % channels) {
      const byte = bytes[i] as number;
      sum[c] = (sum[c] as number) + byte;
      squares[c] = (squares[c] as number) + byte * byte;
    }
    const count = bytes.length / channels;
    const mean = Array.from(sum, (s) => s / count);
    return { mean, std: mean.map((m, c) => Math.sqrt((squares[c] as number) / count - m * m)) };
  };

  const sets = [
    ['mnist', mnist, 60000, 1],
    ['fashion-mnist', fashionMnist, 60000, 1],
    ['cifar-10-batches-bin', cifar10, 50000, 3],
  ] as const;
  const there = sets.filter(([set]) => given !== '' && existsSync(join(given, set)));
  for (const [set] of sets.filter((one) => !there.includes(one))) {
    it.skip(`${set} (skipped: FRUGAL_DATA is not set or does not hold it)`, () => undefined);
  }

  it.each(there)('%s has its size and the stated mean and deviation', async (_, load, count, channels) => {
    const { train, test } = await load({ folder: given, ...quiet });
    expect([train.length, test.length]).toEqual([count, 10000]);
    const { mean, std } = moments(train.inputs, channels);
    // Half a grey level: copies of CIFAR-10 that went through another image format have slightly other pixels.
    const near = (stated: number | undefined, measured: number | undefined): void =>
      expect(Math.abs((stated ?? NaN) - (measured ?? NaN))).toBeLessThan(channels === 1 ? 0.005 : 0.5);
    for (let c = 0; c < channels; c++) {
      near(train.normalize?.mean[c], mean[c]);
      near(train.normalize?.std[c], std[c]);
    }
  });
});
