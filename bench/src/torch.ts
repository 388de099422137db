import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
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

/** One pool of threads for PyTorch and BLAS, where the library is installed. */
function openmpBlas(): Record<string, string> {
  const base = '/usr/lib';
  const folder = readdirSync(base)
    .map((name) => join(base, name, 'openblas-openmp'))
    .find((path) => existsSync(path));
  return folder === undefined ? {} : { LD_LIBRARY_PATH: folder };
}

function variants(network: 'mlp' | 'resnet20'): Variant[] {
  const tuned = { ...TUNED_MALLOC, ...openmpBlas() };
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
  const env = { ...process.env, ...extra };
  for (const name of ['OPENBLAS_CORETYPE', 'OPENBLAS_L2_SIZE', 'GOMP_SPINCOUNT', 'OMP_NUM_THREADS'])
    Reflect.deleteProperty(env, name);
  return env;
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
    const { value, done } = await lines.next();
    if (done) throw new Error(`PyTorch (${key}) ended early.`);
    return JSON.parse(value) as Record<string, unknown>;
  };
  const hello = await read();
  return {
    key,
    version: String(hello['torch'] as string),
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
  return Promise.all(variants(network).map((variant) => start(python, network, threads, variant)));
}
