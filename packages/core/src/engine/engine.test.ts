import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import { afterEach, describe, expect, it } from 'vitest';
import { FrugalError } from '../errors.js';
import { diagnose, formatFindings } from './doctor.js';
import { activeEngine, useEngine } from './ladder.js';
import { loadTensorflow, polyfillUtil } from './tensorflow.js';

const silent = { log: (): void => undefined };
const absent = (name: string): Promise<never> =>
  Promise.reject(Object.assign(new Error(`Cannot find package '${name}'`), { code: 'ERR_MODULE_NOT_FOUND' }));

/** Registers a backend as tfjs-node does when it is imported; `break_` spoils one kernel. */
function fake(options: { gpu?: boolean; broken?: string } = {}): () => Promise<void> {
  return () => {
    class Backend extends MathBackendCPU {
      readonly isUsingGpuDevice = options.gpu === true;
    }
    tf.registerBackend('tensorflow', () => Object.assign(new Backend(), { firstUse: false }), 3);
    tf.copyRegisteredKernels('cpu', 'tensorflow');
    if (options.broken) {
      const stock = tf.getKernel(options.broken, 'cpu');
      tf.unregisterKernel(options.broken, 'tensorflow');
      tf.registerKernel({
        kernelName: options.broken,
        backendName: 'tensorflow',
        kernelFunc: (p) => {
          const result = stock.kernelFunc(p) as tf.TensorInfo;
          ((p.backend as MathBackendCPU).data.get(result.dataId).values as Float32Array)[0]! += 1;
          return result;
        },
      });
    }
    return Promise.resolve();
  };
}

afterEach(async () => {
  if (tf.findBackend('tensorflow') !== null) tf.removeBackend('tensorflow');
  for (const { kernelName } of tf.getKernelsForBackend('tensorflow')) tf.unregisterKernel(kernelName, 'tensorflow');
  await tf.setBackend('cpu');
});

describe('the loader of TensorFlow', () => {
  it('explains absent packages and goes on', async () => {
    const { detail, rejected } = await loadTensorflow(['a-gpu', 'a-cpu'], absent);
    expect(detail).toBeUndefined();
    expect(rejected).toEqual([
      { name: 'a-gpu', reason: 'not installed', remedy: expect.stringContaining('npm install a-gpu') as string },
      { name: 'a-cpu', reason: 'not installed', remedy: expect.stringContaining('npm install a-cpu') as string },
    ]);
  });

  it('explains a missing CUDA library and a broken addon', async () => {
    const errors = [
      'libcudart.so.11.0: cannot open shared object file',
      'The specified module could not be found.\nmore',
    ];
    const { rejected } = await loadTensorflow(['gpu', 'cpu'], () => Promise.reject(new Error(errors.shift())));
    expect(rejected[0]).toMatchObject({
      reason: 'libcudart.so.11.0 cannot be loaded',
      remedy: expect.stringContaining('CUDA 11.2') as string,
    });
    expect(rejected[1]).toMatchObject({ reason: 'it fails to load: The specified module could not be found.' });
  });

  it('refuses a package that loads but registers nothing', async () => {
    expect((await loadTensorflow(['hollow'], () => Promise.resolve())).rejected[0]!.reason).toBe(
      'it registered no backend',
    );
    expect(tf.getBackend()).toBe('cpu');
  });

  it.each(['BatchMatMul', 'Conv2DBackpropFilter'])(
    'refuses a package that looks healthy but has a wrong %s',
    async (broken) => {
      await tf.setBackend('cpu');
      const { detail, rejected } = await loadTensorflow(['sick'], fake({ broken }));
      expect(detail).toBeUndefined();
      expect(rejected[0]!.reason).toMatch(/it computes wrongly: a (2×2 product|convolution gradient) gave/);
      expect(tf.getBackend()).toBe('cpu');
    },
  );

  it('takes a healthy package and says where it computes', async () => {
    expect(await loadTensorflow(['good'], fake())).toMatchObject({ detail: 'good on the CPU', gpu: false });
    expect(tf.getBackend()).toBe('tensorflow');
  });

  it('adds what newer Node versions dropped from util, and nothing that is there', () => {
    const own = (): boolean => true;
    const util: Record<string, unknown> = { isArray: own };
    polyfillUtil(util);
    const isNullOrUndefined = util['isNullOrUndefined'] as (v: unknown) => boolean;
    expect([null, undefined, 0].map(isNullOrUndefined)).toEqual([true, true, false]);
    expect(util['isArray']).toBe(own);
  });
});

describe('useEngine', () => {
  it('takes TensorFlow on a GPU before the native engine, and not TensorFlow on the CPU', async () => {
    const gpu = await useEngine('auto', {
      ...silent,
      importer: (name) => (name.endsWith('gpu') ? fake({ gpu: true })() : absent(name)),
    });
    expect([gpu.name, gpu.detail]).toEqual(['tensorflow', '@tensorflow/tfjs-node-gpu on the GPU']);
    tf.removeBackend('tensorflow');
    const local = await useEngine('auto', {
      ...silent,
      importer: (name) => (name.endsWith('gpu') ? fake({ gpu: false })() : absent(name)),
    });
    expect(local.rejected[0]!.reason).toBe('it found no GPU');
    expect(local.name).not.toBe('cpu');
  });

  it('says in one line what it took and why, and makes it active', async () => {
    const lines: string[] = [];
    const engine = await useEngine('auto', { log: (line) => lines.push(line), importer: absent });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^Frugal runs on .* \(not @tensorflow\/tfjs-node-gpu: not installed.*\)\.$/);
    expect(tf.getBackend()).toBe(engine.backend);
    expect(activeEngine()).toBe(engine);
  });

  it('insists on an engine that was asked for by name: error with reason and remedy', async () => {
    const refused = useEngine('tensorflow', { ...silent, importer: absent });
    await expect(refused).rejects.toSatisfy((error) => FrugalError.is(error, 'ENGINE'));
    await expect(refused).rejects.toThrow(/tfjs-node-gpu: not installed \(remedy: npm install/);
    await expect(useEngine('cuda' as never, silent)).rejects.toThrow(
      "one of 'auto', 'tensorflow', 'native', 'portable', 'cpu'",
    );
  });

  it('falls back to the portable engine where the native one is switched off', () => {
    const script =
      "import { useEngine } from './packages/core/src/index.ts'; const e = await useEngine('auto', { log: () => {} }); console.log(e.name, e.rejected.map((r) => r.name).join());";
    const root = join(import.meta.dirname, '../../../..');
    const output = execFileSync(
      process.execPath,
      ['--conditions=@frugal/source', '--import', 'tsx', '--input-type=module', '-e', script],
      { cwd: root, env: { ...process.env, FRUGAL_NATIVE: 'off', FRUGAL_ENGINE: 'auto' }, encoding: 'utf8' },
    );
    expect(output.trim()).toMatch(/^portable .*native/);
  });
});

describe('frugal doctor', () => {
  it('lists what was found, what was not, why, and the remedy', async () => {
    const findings = await diagnose();
    const subjects = findings.map(({ subject }) => subject);
    for (const subject of ['Node.js', 'TensorFlow.js', 'machine', 'engine portable', 'engine cpu', 'in use'])
      expect(subjects).toContain(subject);
    for (const { ok, remedy, subject } of findings) if (!ok) expect(remedy, subject).toBeTruthy();
    const text = formatFindings([
      { subject: 'engine native', ok: false, found: 'not built', remedy: 'run script/bootstrap' },
    ]);
    expect(text).toBe('✗ engine native  not built\n                 → run script/bootstrap');
  });
});
