import * as tf from '@tensorflow/tfjs';
import { type Addon, loadAddon } from './addon.js';
import { NativeBackend } from './backend.js';
import { Counters, type NativeCounters } from './counters.js';
import { registerGradients } from './gradients.js';
import { registerConv } from './kernels/conv.js';
import { registerElementwise } from './kernels/elementwise.js';
import { registerFused } from './kernels/fused.js';
import { registerGram } from './kernels/gram.js';
import { BACKEND, Registry } from './kernels/kernel.js';
import { registerMatMul } from './kernels/matmul.js';
import { registerNorm } from './kernels/norm.js';
import { registerPool } from './kernels/pool.js';
import { registerReduce } from './kernels/reduce.js';
import { registerShape } from './kernels/shape.js';
import { registerSigns } from './kernels/signs.js';
import { registerSlices } from './kernels/slices.js';
import { registerUpdate } from './kernels/update.js';

export type { CopyingBackend } from './backend.js';
export type { NativeCounters } from './counters.js';
export { type Lapack, loadLapack } from './linalg.js';
export { loadVectors, type VectorLoops } from './vectors.js';

/** The native engine of this process. */
export interface NativeEngine {
  readonly name: 'native';
  /** Threads that kernels use. */
  readonly threads: number;
  /** Instruction set that the engine's own loops were compiled for, as x86-64-v4. */
  readonly instructionSet: string;
  /** For people: 'oneDNN 2.6.3, x86-64-v4, 2 threads'. */
  readonly detail: string;
  /** What it has done since the last reset. */
  counters(): NativeCounters;
  resetCounters(): void;
}

/** Options of `registerNative`. */
export interface NativeOptions {
  /** Threads that kernels use; the number of cores, or OMP_NUM_THREADS, when absent. */
  readonly threads?: number;
}

/** Above the cpu (1) and webgl (2) backends: who registers this one wants it. */
const PRIORITY = 3;

/** Loading the addon, kernels and gradients are per process: once is enough. */
let registered: { readonly addon: Addon; readonly engine: NativeEngine } | undefined;

/**
 * Registers the TensorFlow.js backend 'native', its kernels and its gradients; `tf.setBackend('native')` then selects it.
 * A second call changes only the number of threads. Throws, with what was tried and what to do, when there is no addon.
 */
export function registerNative(options: NativeOptions = {}): NativeEngine {
  const { threads } = options;
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1)) {
    throw new RangeError(`threads must be a whole number of at least 1, not ${threads}.`);
  }
  registered ??= register(loadAddon());
  if (threads !== undefined) registered.addon.setThreads(threads);
  return registered.engine;
}

function register(addon: Addon): { addon: Addon; engine: NativeEngine } {
  const counters = new Counters();
  const registry = new Registry(counters);
  registry.copyCpuKernels();
  registerElementwise(registry);
  registerShape(registry);
  registerReduce(registry);
  registerMatMul(registry);
  registerConv(registry);
  registerPool(registry);
  registerNorm(registry);
  registerFused(registry);
  registerSlices(registry);
  registerSigns(registry);
  registerGram(registry);
  registerUpdate(registry);
  registerGradients();
  tf.registerBackend(BACKEND, () => new NativeBackend(addon, counters), PRIORITY);
  return { addon, engine: describe(addon, counters) };
}

function describe(addon: Addon, counters: Counters): NativeEngine {
  const level = addon.instructionSet();
  const instructionSet = /^v\d$/.test(level) ? `x86-64-${level}` : process.arch;
  return {
    name: BACKEND,
    get threads() {
      return addon.threads();
    },
    instructionSet,
    get detail() {
      return `${addon.libraryVersion()}, ${instructionSet}, ${addon.threads()} threads`;
    },
    counters: () => counters.snapshot(),
    resetCounters: () => counters.reset(),
  };
}
