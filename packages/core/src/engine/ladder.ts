import * as tf from '@tensorflow/tfjs';
import { checkChoice } from '../check.js';
import { FrugalError } from '../errors.js';
import { registerKernels } from '../kernels/register.js';
import { ENGINE_NAMES, ENGINES } from './contract.js';
import { type Engine, type EngineName, noCounters, type Rejected } from './engine.js';
import { healthProblem } from './health.js';
import { type Importer, loadTensorflow } from './tensorflow.js';

export type { EngineName } from './engine.js';

/** How `useEngine` works. */
export interface EngineOptions {
  /** Receives the one line that says what was picked and why. Default: standard error. */
  readonly log?: (line: string) => void;
  /** Threads of the native engine. Default: all cores. */
  readonly threads?: number;
  /** Loads optional packages; for tests. */
  readonly importer?: Importer;
}

const CHOICES = ['auto', ...ENGINE_NAMES] as const;
const [GPU_PACKAGE, CPU_PACKAGE] = ENGINES[0].packages;

/** The engines that `useEngine` has made, by backend. TensorFlow.js has one registry of backends per process; so has this. */
const engines = new Map<string, Engine>();

/** One rung of the ladder: an engine, or why it is not to be had. */
type Rung = (options: EngineOptions) => Promise<Found | Rejected | readonly Rejected[]>;

/** An engine that works, and what was tried before it on its rung. */
type Found = Omit<Engine, 'rejected'> & { readonly rejected?: readonly Rejected[] };

const NO_GPU = { reason: 'it found no GPU', remedy: 'install the NVIDIA driver, CUDA 11.2 and cuDNN 8.1' };

const firstLine = (error: unknown): string =>
  ((error as Error).message ?? String(error)).split('\n')[0]?.replace(/ Tried:$/, '') as string;

const tensorflow =
  (packages: readonly string[], gpuOnly: boolean): Rung =>
  async ({ importer }) => {
    const { name, detail, gpu, rejected } = await loadTensorflow(packages, importer);
    if (detail === undefined) return rejected;
    // A GPU package on the CPU is not what somebody installed it for, whichever engine is taken then.
    const lost: Rejected[] = name === GPU_PACKAGE && !gpu ? [{ name, ...NO_GPU }] : [];
    if (gpuOnly && !gpu) return [...rejected, ...lost];
    return { name: 'tensorflow', backend: 'tensorflow', detail, rejected: [...rejected, ...lost], ...noCounters };
  };

const native: Rung = async ({ threads }) => {
  try {
    const { registerNative } = await import('@frugal/native');
    const { detail, counters, resetCounters } = registerNative(threads === undefined ? {} : { threads });
    return { name: 'native', backend: 'native', detail: `native, ${detail}`, counters, resetCounters };
  } catch (error) {
    return {
      name: 'native',
      reason: firstLine(error),
      remedy: 'run script/bootstrap, or install g++, cmake and libdnnl-dev and build packages/native',
    };
  }
};

const portable: Rung = async () => {
  try {
    const { registerPortable } = await import('@frugal/portable');
    const { backend, detail, counters, resetCounters } = await registerPortable();
    return { name: 'portable', backend, detail: `portable, ${detail}`, counters, resetCounters };
  } catch (error) {
    return { name: 'portable', reason: firstLine(error), remedy: 'install @tensorflow/tfjs-backend-wasm 4.22.0' };
  }
};

const cpu: Rung = () =>
  Promise.resolve({ name: 'cpu', backend: 'cpu', detail: 'cpu, plain JavaScript', ...noCounters });

/** The cpu backend greets its first use with a line that advertises another engine (tfjs-backend-cpu 4.22, backend_cpu.ts). */
function silenceGreeting(): void {
  const backend = tf.findBackend('cpu') as { firstUse?: boolean } | null;
  if (backend) backend.firstUse = false;
}

const LADDER: Record<(typeof CHOICES)[number], readonly Rung[]> = {
  auto: [tensorflow([GPU_PACKAGE], true), native, tensorflow([CPU_PACKAGE], false), portable, cpu],
  tensorflow: [tensorflow([GPU_PACKAGE, CPU_PACKAGE], false)],
  native: [native],
  portable: [portable],
  cpu: [cpu],
};

/** Makes an engine the active one; returns what is wrong with it, or undefined. */
async function activate(backend: string): Promise<string | undefined> {
  if (!(await tf.setBackend(backend))) return `backend ${backend} cannot be initialised`;
  await tf.ready();
  registerKernels(backend);
  return healthProblem();
}

/** No engine: what was tried, as text and as data. */
export class EngineError extends FrugalError {
  /** What was tried. */
  readonly rejected: readonly Rejected[];

  /** Says what was asked for, and why each rung failed. */
  constructor(choice: string, rejected: readonly Rejected[]) {
    super('ENGINE', `The engine ${choice} cannot be used. ${reasons(rejected)}`);
    this.rejected = rejected;
  }
}

const reasons = (rejected: readonly Rejected[]): string =>
  rejected
    .map(({ name, reason, remedy }) => `${name}: ${reason}${remedy === undefined ? '' : ` (remedy: ${remedy})`}`)
    .join('; ');

/**
 * Picks the engine and makes it TensorFlow.js's active backend. `auto` takes the first that works: TensorFlow on a GPU,
 * the native engine, TensorFlow on the CPU, the portable engine, plain JavaScript. It says in one line what it took and why.
 *
 * @param name - an engine to insist on; default: `FRUGAL_ENGINE`, or `auto`
 * @throws {@link FrugalError} `ENGINE` when an engine that was asked for by name cannot be had, with reasons and remedies
 * @example
 * ```ts
 * const engine = await useEngine();
 * console.log(engine.detail); // native, oneDNN 2.6.3, x86-64-v4, 2 threads
 * ```
 */
export async function useEngine(name?: EngineName | 'auto', options: EngineOptions = {}): Promise<Engine> {
  const choice = checkChoice('useEngine', 'name', name ?? process.env['FRUGAL_ENGINE'] ?? 'auto', CHOICES);
  const log = options.log ?? ((line: string) => process.stderr.write(`${line}\n`));
  const rejected: Rejected[] = [];
  silenceGreeting();
  for (const rung of LADDER[choice]) {
    const result = await rung(options);
    if (!('backend' in result)) {
      rejected.push(...[result].flat());
      continue;
    }
    rejected.push(...(result.rejected ?? []).filter(({ name: of }) => !rejected.some((known) => known.name === of)));
    const problem = await activate(result.backend);
    if (problem !== undefined) {
      rejected.push({ name: result.name, reason: problem });
      continue;
    }
    const engine: Engine = { ...result, rejected };
    engines.set(engine.backend, engine);
    const why =
      rejected.length === 0 ? '' : ` (not ${rejected.map(({ name: n, reason }) => `${n}: ${reason}`).join('; ')})`;
    log(`Frugal runs on ${engine.detail}${why}.`);
    return engine;
  }
  throw new EngineError(choice, rejected);
}

/** The engine that `useEngine` made for the active backend, if it did. */
export function activeEngine(): Engine | undefined {
  return engines.get(tf.getBackend());
}
