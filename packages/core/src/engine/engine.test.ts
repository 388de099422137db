import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { FrugalError } from '../errors.js';
import { contractOf, ENGINES, KERNELS, readsAreFree } from './contract.js';
import { diagnose, formatFindings } from './doctor.js';
import { activeEngine, EngineError, type EngineName, useEngine } from './ladder.js';
import { loadTensorflow, polyfillUtil } from './tensorflow.js';

const silent = { log: (): void => undefined };
const absent = (name: string): Promise<never> =>
  Promise.reject(Object.assign(new Error(`Cannot find package '${name}'`), { code: 'ERR_MODULE_NOT_FOUND' }));

const GPU = '@tensorflow/tfjs-node-gpu';
const CPU = '@tensorflow/tfjs-node';

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

/** Packages as Node.js has them: a module runs at its first import only; the others are not installed. */
function installed(packages: Readonly<Record<string, () => Promise<void>>>): (name: string) => Promise<unknown> {
  const modules = new Map<string, Promise<void>>();
  return (name) => {
    const load = packages[name];
    if (!load) return absent(name);
    if (!modules.has(name)) modules.set(name, load());
    return modules.get(name) as Promise<void>;
  };
}

const broken = (): Promise<never> => Promise.reject(new Error('libcudart.so.11.0: cannot open shared object file'));

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

describe('the contract of engines', () => {
  /** The engines of this machine, with the backend of each. */
  const available = async (): Promise<[EngineName, string][]> => {
    const found: [EngineName, string][] = [];
    for (const { name } of ENGINES) {
      try {
        found.push([name, (await useEngine(name, silent)).backend]);
      } catch (error) {
        if (!(error instanceof EngineError)) throw error;
      }
    }
    return found;
  };

  it('is kept by each engine that is to be had: kernels, fused forms, updates in place', async () => {
    const engines = await available();
    expect(engines.map(([name]) => name)).toEqual(expect.arrayContaining(['portable', 'cpu']));
    for (const [name, backend] of engines) {
      const missing = (kernels: readonly string[]): string[] =>
        kernels.filter((kernel) => tf.getKernel(kernel, backend) === undefined);
      expect(missing(KERNELS.must), `${name} must`).toEqual([]);
      expect(missing(KERNELS.may), `${name} may`).toEqual([]);
      const { can } = ENGINES.find((engine) => engine.name === name)!;
      expect(missing(KERNELS.update), `${name} update`).toEqual(can.inPlace ? [] : [...KERNELS.update]);
      expect(contractOf(backend)?.name).toBe(name);
      expect(readsAreFree(backend)).toBe(can.freeReads);
    }
  });

  it('knows nothing of other backends', () => {
    for (const backend of ['webgl', 'webgpu', 'counting', '', 'CPU']) {
      expect(contractOf(backend)).toBeUndefined();
      expect(readsAreFree(backend)).toBe(false);
    }
    expect(ENGINES.map(({ backends }) => backends.map(readsAreFree))).toEqual([[false], [true], [true, true], [true]]);
  });

  it('is the one list: the ladder takes its names and no other, the doctor looks at each of them', async () => {
    const names = ENGINES.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    const backends = ENGINES.flatMap((engine) => [...engine.backends]);
    expect(new Set(backends).size).toBe(backends.length);
    const expected = `one of ${['auto', ...names].map((name) => `'${name}'`).join(', ')} but`;
    await expect(useEngine('other' as never, silent)).rejects.toThrow(expected);
    for (const name of names) {
      // It is to be had, or the error is that of an engine: the name is known.
      const got: unknown = await useEngine(name, { ...silent, importer: absent }).then(
        (engine) => engine.name,
        (error: unknown) => (error instanceof EngineError ? name : error),
      );
      expect(got).toBe(name);
    }
    const looked = (await diagnose()).map(({ subject }) => subject).filter((subject) => /^engine |^@/.test(subject));
    for (const { name, ...engine } of ENGINES) {
      const packages: readonly string[] = 'packages' in engine ? engine.packages : [];
      expect(
        looked.some((subject) => subject === `engine ${name}` || packages.includes(subject)),
        name,
      ).toBe(true);
    }
    const known = ENGINES.flatMap((engine) => [
      `engine ${engine.name}`,
      ...('packages' in engine ? engine.packages : []),
    ]);
    expect(looked.filter((subject) => !known.includes(subject))).toEqual([]);
  });
});

describe('useEngine with the packages of TensorFlow', () => {
  it('works again and again in a process, though a repeated import registers nothing', async () => {
    const importer = installed({ [CPU]: fake() });
    for (const from of ['cpu', 'tensorflow', 'portable', 'cpu'] as const) {
      if (from !== 'tensorflow') await useEngine(from, silent);
      const engine = await useEngine('tensorflow', { ...silent, importer });
      expect([engine.name, engine.detail, tf.getBackend()]).toEqual([
        'tensorflow',
        '@tensorflow/tfjs-node on the CPU',
        'tensorflow',
      ]);
      expect(engine.rejected.map(({ name, reason }) => [name, reason])).toEqual([[GPU, 'not installed']]);
      expect(activeEngine()).toBe(engine);
      expect(tf.tidy(() => tf.add(1, 1).dataSync()[0])).toBe(2);
    }
  });

  it('does not lose an engine in use to packages that fail', async () => {
    await useEngine('portable', silent);
    const before = tf.getBackend();
    const refused = useEngine('tensorflow', {
      ...silent,
      importer: installed({ [GPU]: broken, [CPU]: fake({ broken: 'BatchMatMul' }) }),
    });
    await expect(refused).rejects.toThrow(/libcudart.*it computes wrongly/);
    expect(tf.getBackend()).toBe(before);
    const good = installed({ [CPU]: fake() });
    await useEngine('tensorflow', { ...silent, importer: good });
    // A package that fails later leaves the one that works.
    const { detail } = await useEngine('tensorflow', {
      ...silent,
      importer: (name) => (name === GPU ? broken() : good(name)),
    });
    expect(detail).toBe('@tensorflow/tfjs-node on the CPU');
    expect(tf.getBackend()).toBe('tensorflow');
  });

  it.each([
    ['is broken', broken, 'libcudart.so.11.0 cannot be loaded', '@tensorflow/tfjs-node on the CPU'],
    ['is not installed', undefined, 'not installed', '@tensorflow/tfjs-node on the CPU'],
    [
      'computes wrongly',
      fake({ gpu: true, broken: 'BatchMatMul' }),
      /it computes wrongly/,
      '@tensorflow/tfjs-node on the CPU',
    ],
    // It is TensorFlow on the CPU, too.
    ['finds no GPU', fake({ gpu: false }), 'it found no GPU', /^@tensorflow\/tfjs-node(-gpu)? on the CPU$/],
  ] as const)(
    'says of a GPU package that it %s, also where TensorFlow is taken by name',
    async (_what, gpu, reason, detail) => {
      const lines: string[] = [];
      const importer = installed({ ...(gpu && { [GPU]: gpu }), [CPU]: fake() });
      const engine = await useEngine('tensorflow', { log: (line) => lines.push(line), importer });
      expect(engine.name).toBe('tensorflow');
      expect(engine.detail).toMatch(detail);
      expect(engine.rejected).toHaveLength(1);
      expect(engine.rejected[0]!.name).toBe(GPU);
      expect(engine.rejected[0]!.reason).toMatch(reason);
      expect(engine.rejected[0]!.remedy !== undefined).toBe(true);
      expect(lines[0]).toContain(`(not ${GPU}: `);
    },
  );

  it('rejects nothing where the GPU package has its GPU', async () => {
    const importer = installed({ [GPU]: fake({ gpu: true }), [CPU]: fake() });
    for (const name of ['tensorflow', 'auto'] as const) {
      const engine = await useEngine(name, { ...silent, importer });
      expect([engine.detail, engine.rejected]).toEqual(['@tensorflow/tfjs-node-gpu on the GPU', []]);
    }
  });

  it.each([
    ['alone', { [GPU]: false, [CPU]: true }],
    ['beside a GPU package that finds no GPU', { [GPU]: true, [CPU]: true }],
  ])('takes TensorFlow on the CPU, %s, where there is no native engine', (_what, packages) => {
    // In a process of its own: a native engine that was loaded stays.
    const script = `
      import * as tf from '@tensorflow/tfjs';
      import { useEngine } from './src/index.ts';
      const packages = ${JSON.stringify(packages)};
      const importer = async (name) => {
        if (!packages[name]) throw Object.assign(new Error(name), { code: 'ERR_MODULE_NOT_FOUND' });
        tf.registerBackend('tensorflow', tf.engine().findBackendFactory('cpu'), 3);
        tf.copyRegisteredKernels('cpu', 'tensorflow');
      };
      const { name, detail, rejected } = await useEngine('auto', { log: () => {}, importer });
      console.log(JSON.stringify([name, detail, rejected.map((r) => r.name)]));`;
    const output = execFileSync(
      process.execPath,
      ['--conditions=@frugal/source', '--import', 'tsx', '--input-type=module', '-e', script],
      {
        cwd: join(import.meta.dirname, '../..'),
        env: { ...process.env, FRUGAL_NATIVE: 'off' },
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    );
    const [name, detail, rejected] = JSON.parse(output.trim().split('\n').at(-1)!) as [string, string, string[]];
    expect([name, rejected]).toEqual(['tensorflow', [GPU, 'native']]);
    expect(detail).toMatch(/^@tensorflow\/tfjs-node(-gpu)? on the CPU$/);
  });
});

describe('frugal doctor', () => {
  it.each([
    ['finds no GPU', () => fake({ gpu: false })(), 'it found no GPU'],
    ['computes wrongly', () => fake({ gpu: true, broken: 'BatchMatMul' })(), /^it computes wrongly: a 2×2 product/],
  ] as const)('shows a GPU package that %s, though TensorFlow works', async (_what, gpu, found) => {
    const importer = installed({ [GPU]: gpu, [CPU]: fake() });
    const load = async (name: string) => {
      await importer(name);
      return {};
    };
    vi.doMock(GPU, () => load(GPU));
    vi.doMock(CPU, () => load(CPU));
    try {
      const findings = await diagnose();
      const gpuPackage = findings.filter(({ subject }) => subject === GPU);
      expect(gpuPackage).toEqual([
        {
          subject: GPU,
          ok: false,
          found: expect.stringMatching(found) as string,
          remedy: expect.any(String) as string,
        },
      ]);
      expect(findings.find(({ subject }) => subject === 'engine tensorflow')?.found).toMatch(/on the CPU$/);
    } finally {
      vi.doUnmock(GPU);
      vi.doUnmock(CPU);
    }
  });

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
