import * as tf from '@tensorflow/tfjs';
import type { Tally, WasmBackend } from './backend.js';
import { NAME, portableFace } from './backend.js';
import { bridgeMissing } from './bridge.js';
import { convKernels } from './conv.js';
import { copyKernels } from './copy.js';
import { gatherKernels } from './gather.js';
import { override } from './kernel.js';
import { matMulKernels } from './matmul.js';
import { poolKernels } from './pool.js';
import { reduceKernels } from './reduce.js';
import { samePadKernels } from './same-pad.js';

/** What the engine did since the last `resetCounters`. */
export interface PortableCounters {
  /** Calls that ran on the plain JavaScript backend, by kernel: each is slow. */
  readonly fallbacks: Readonly<Record<string, number>>;
  /** Buffers allocated on the wasm heap. */
  readonly newBuffers: number;
  /** Their bytes. */
  readonly newBytes: number;
  /** Always 0: the wasm allocator keeps no pool. */
  readonly reusedBuffers: number;
}

/** TensorFlow.js's wasm backend, made fit for training. */
export interface PortableEngine {
  /** The engine's name. */
  readonly name: 'portable';
  /** The name for `tf.setBackend`. */
  readonly backend: string;
  /** Threads in use. */
  readonly threads: number;
  /** One line for people, such as `wasm, SIMD, 1 thread`. */
  readonly detail: string;
  /** What was done since the last `resetCounters`. */
  counters(): PortableCounters;
  /** Sets every counter to 0. */
  resetCounters(): void;
}

async function stockBackend(): Promise<WasmBackend> {
  const { registry } = tf.engine();
  if (registry['wasm'] === undefined) {
    const made = (await tf.findBackendFactory('wasm')()) as tf.KernelBackend;
    // Entered by hand: findBackend starts the same factory but offers nothing to wait for (tfjs-core 4.22, engine.ts).
    registry['wasm'] ??= made;
  }
  return registry['wasm'] as unknown as WasmBackend;
}

function registerKernels(tally: Tally): void {
  tf.copyRegisteredKernels('wasm', NAME);
  const cpu = bridgeMissing(tally);
  const groups = [
    copyKernels(),
    matMulKernels(cpu, tally),
    samePadKernels(),
    convKernels(cpu, tally),
    poolKernels(),
    reduceKernels(),
    gatherKernels(),
  ];
  for (const group of groups) {
    for (const [name, kernel] of Object.entries(group)) override(name, kernel);
  }
}

async function register(): Promise<PortableEngine> {
  // The import below registers 'wasm' above 'cpu'; choosing the active backend first keeps it from becoming the default.
  await tf.ready();
  const { getThreadsCount } = await import('@tensorflow/tfjs-backend-wasm');
  const tally: Tally = { fallbacks: {}, newBuffers: 0, newBytes: 0 };
  const face = portableFace(await stockBackend(), tally);
  registerKernels(tally);
  tf.registerBackend(NAME, () => face, 0);
  const threads = getThreadsCount();
  const simd = (await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT')) === true;
  return {
    name: 'portable',
    backend: NAME,
    threads,
    detail: `wasm, ${simd ? 'SIMD' : 'no SIMD'}, ${threads} thread${threads === 1 ? '' : 's'}`,
    counters: () => ({ ...tally, fallbacks: { ...tally.fallbacks }, reusedBuffers: 0 }),
    resetCounters() {
      Object.assign(tally, { fallbacks: {}, newBuffers: 0, newBytes: 0 });
    },
  };
}

let registered: Promise<PortableEngine> | undefined;

/**
 * Registers the engine under the backend name 'portable' and resolves to it; a second call gives the same engine. No
 * backend is made active: call `tf.setBackend(engine.backend)`. The stock 'wasm' backend keeps its kernels.
 */
export function registerPortable(): Promise<PortableEngine> {
  registered ??= register().catch((error: unknown) => {
    registered = undefined;
    throw error;
  });
  return registered;
}
