import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { loadAddon } from './addon.js';
import { type Lapack, loadLapack } from './linalg.js';

const threads = (): number => Number(/^Threads:\s+(\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
const isLinux = process.platform === 'linux';

function open(): Lapack | Error {
  try {
    return loadLapack();
  } catch (error) {
    return error as Error;
  }
}

const environment = { ...process.env };
const before = isLinux ? threads() : 0;
const lapack = open();
const after = isLinux ? threads() : 0;

if (lapack instanceof Error) {
  describe.skip(`LAPACK absent: ${lapack.message.replaceAll(/\s*\n\s*/g, ' ')}`, () => {
    it('is not tested', () => undefined);
  });
} else {
  // The identities are tested with the interface in packages/core/src/linalg; here are the rules of the addon.
  describe('LAPACK', () => {
    it('describes itself', () => {
      expect(lapack.detail).toMatch(/^OpenBLAS/);
    });
    it.runIf(isLinux && process.env['OPENBLAS_NUM_THREADS'] === undefined)('adds no threads to the process', () => {
      // Loading the addon itself may add none either: libgomp makes its pool with the first parallel region.
      expect(after).toBe(before);
    });
    it('leaves the environment and the number of OpenMP threads as they were', () => {
      const addon = loadAddon();
      const count = addon.threads();
      lapack.symmetricEigen(Float64Array.of(2, 1, 1, 2), 2);
      expect(addon.threads()).toBe(count);
      for (const name of ['OPENBLAS_CORETYPE', 'OPENBLAS_NUM_THREADS'])
        expect(process.env[name]).toBe(environment[name]);
    });
    it('returns the pivot that is not positive, counted from 1', () => {
      expect(lapack.cholesky(Float64Array.of(1, 0, 0, -1), 2)).toBe(2);
      const a = Float64Array.of(4, 2, 2, 10);
      expect(lapack.cholesky(a, 2)).toBe(0);
      expect([...a]).toEqual([2, 0, 1, 3]);
    });
    it('waits for what it has begun, and ends the process also where nobody does', () => {
      const code = `
        const addon = require(process.argv[1]);
        const n = 200;
        const start = () => {
          const a = new Float64Array(n * n);
          for (let i = 0; i < n * n; i++) a[i] = 1 / (1 + Math.floor(i / n) + (i % n));
          return addon.lapackEigenStart(a, new Float64Array(n), n);
        };
        const joins = Array.from({ length: 12 }, start);
        joins.splice(3, 6);
        for (let k = 0; k < 3; k++) {
          global.gc();
          start();
        }
        joins.reverse().forEach((join) => join());
        global.gc();
        console.log('joined');
        setTimeout(() => {
          global.gc();
          joins.forEach((join) => join());
          console.log('again');
        }, 300);`;
      const addon = fileURLToPath(new URL('../build/frugal_native.node', import.meta.url));
      if (!existsSync(addon)) return;
      const output = execFileSync(process.execPath, ['--expose-gc', '-e', code, addon], {
        encoding: 'utf8',
        timeout: 30000,
      });
      expect(output).toBe('joined\nagain\n');
    });
    it('refuses arrays of other lengths or types instead of reading beyond them', async () => {
      expect(() => lapack.symmetricEigen(new Float64Array(3), 2)).toThrow(/as long as its sizes/);
      expect(() => lapack.cholesky(new Float32Array(4) as unknown as Float64Array, 2)).toThrow(/typed array/);
      expect(() => lapack.thinSvd(new Float64Array(0), 0, 3)).toThrow(/size from 1/);
      expect(() => lapack.startSymmetricEigen(new Float64Array(3), 2)).toThrow(/as long as its sizes/);
      await expect(lapack.symmetricEigenAsync(new Float64Array(3), 2)).rejects.toThrow(/as long as its sizes/);
    });
  });
}

describe('loadLapack', () => {
  afterEach(() => void vi.unstubAllEnvs());
  it('throws the reason where there is no addon', () => {
    vi.stubEnv('FRUGAL_NATIVE', 'off');
    expect(() => loadLapack()).toThrow(/FRUGAL_NATIVE=off/);
  });
});
