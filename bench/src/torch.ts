import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** A PyTorch process that makes training steps on demand. */
export interface TorchRival {
  /** Key in a results file: `torch_default`, `torch_tuned`, … */
  readonly key: string;
  /** Version of PyTorch. */
  readonly version: string;
  /** Milliseconds per step over `count` steps. */
  steps(count: number): Promise<number>;
  /** Ends the process. */
  stop(): void;
}

/** Variants of PyTorch: as it comes, and as the best-informed user would run it. */
interface Variant {
  readonly key: string;
  readonly layout: 'nchw' | 'channels_last';
  readonly env: Record<string, string>;
}

/** Keeps freed memory instead of giving it back to the system at each step, which costs PyTorch 25–30 %. */
const TUNED_MALLOC = { MALLOC_MMAP_MAX_: '0', MALLOC_TRIM_THRESHOLD_: '1000000000000', MALLOC_TOP_PAD_: '268435456' };

/**
 * OpenBLAS 0.3.21 does not know processors that are newer than it and takes SSE3 code for them. The well-informed user names
 * the newest set of instructions that it has and the processor understands.
 */
function blasCore(python: string): Record<string, string> {
  const probe = 'import torch; torch.randn(64, 64) @ torch.randn(64, 64)';
  const { stderr, stdout } = spawnSync(python, ['-c', probe], {
    env: cleanEnv({ OPENBLAS_VERBOSE: '2' }),
    encoding: 'utf8',
  });
  const core = /Core: (\w+)/.exec(`${stderr}${stdout}`)?.[1];
  if (core === undefined || !['Prescott', 'Core2', 'Nehalem', 'Atom'].includes(core)) return {};
  const flags = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : '';
  if (/\bavx512vl\b/.test(flags)) return { OPENBLAS_CORETYPE: 'SkylakeX' };
  return /\bavx2\b/.test(flags) ? { OPENBLAS_CORETYPE: 'Haswell' } : {};
}

/** One pool of threads for PyTorch and BLAS, where the library is installed. */
function openmpBlas(): Record<string, string> {
  const base = '/usr/lib';
  const folder = readdirSync(base)
    .map((name) => join(base, name, 'openblas-openmp'))
    .find((path) => existsSync(path));
  return folder === undefined ? {} : { LD_LIBRARY_PATH: folder };
}

function variants(python: string, network: 'mlp' | 'resnet20'): Variant[] {
  const tuned = { ...TUNED_MALLOC, ...openmpBlas(), ...blasCore(python) };
  const flat: Variant[] = [
    { key: 'torch_default', layout: 'nchw', env: {} },
    { key: 'torch_tuned', layout: 'nchw', env: tuned },
  ];
  if (network === 'mlp') return flat;
  return [
    ...flat,
    { key: 'torch_channels_last', layout: 'channels_last', env: {} },
    { key: 'torch_channels_last_tuned', layout: 'channels_last', env: tuned },
  ];
}

/** Is PyTorch to be had from this interpreter? */
export function hasTorch(python: string): boolean {
  try {
    execFileSync(python, ['-c', 'import torch'], { stdio: 'ignore', env: cleanEnv({}) });
    return true;
  } catch {
    return false;
  }
}

/** The environment without the variables that halve OpenBLAS on modern processors. */
function cleanEnv(extra: Record<string, string>): NodeJS.ProcessEnv {
  const env = { ...process.env };
  for (const name of ['OPENBLAS_CORETYPE', 'OPENBLAS_L2_SIZE', 'GOMP_SPINCOUNT', 'OMP_NUM_THREADS'])
    Reflect.deleteProperty(env, name);
  return { ...env, ...extra };
}

async function start(
  python: string,
  network: string,
  threads: number,
  { key, layout, env }: Variant,
): Promise<TorchRival> {
  const script = join(import.meta.dirname, '../python/step.py');
  const child: ChildProcess = spawn(python, [script, network, layout, String(threads)], {
    env: cleanEnv(env),
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]();
  const read = async (): Promise<Record<string, unknown>> => {
    const { value, done } = (await lines.next()) as IteratorResult<string, undefined>;
    if (done) throw new Error(`PyTorch (${key}) ended early.`);
    return JSON.parse(value) as Record<string, unknown>;
  };
  const hello = await read();
  return {
    key,
    version: hello['torch'] as string,
    async steps(count) {
      child.stdin?.write(`${count}\n`);
      return (await read())['ms'] as number;
    },
    stop: () => child.kill(),
  };
}

/** Starts every variant of PyTorch for a network; none where PyTorch is not installed. */
export async function torchRivals(python: string, network: 'mlp' | 'resnet20', threads: number): Promise<TorchRival[]> {
  if (!hasTorch(python)) return [];
  return Promise.all(variants(python, network).map((variant) => start(python, network, threads, variant)));
}
