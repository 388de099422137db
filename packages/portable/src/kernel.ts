import * as tf from '@tensorflow/tfjs';
import type { WasmBackend } from './backend.js';
import { NAME } from './backend.js';

/** Named inputs of a kernel; an optional one may be absent. */
export type Inputs = Readonly<Record<string, tf.TensorInfo | undefined>>;

/** A kernel of this engine. */
export type Kernel = (inputs: Inputs, attrs: unknown, backend: WasmBackend) => tf.TensorInfo | tf.TensorInfo[];

/** Kernels by name. */
export type Kernels = Readonly<Record<string, Kernel>>;

/** Runs a kernel of this engine that has one output; its result is disposed with the scope. */
export type Run = (name: string, inputs: Inputs, attrs?: object) => tf.TensorInfo;

/** The input `name`, which the kernel's contract promises. */
export function need(inputs: Inputs, name: string): tf.TensorInfo {
  const info = inputs[name];
  if (info === undefined) throw new Error(`portable engine: expected the input ${name} but received nothing.`);
  return info;
}

/** The i-th size, which the kernel's contract promises. */
export const at = (shape: readonly number[], i: number): number => shape.at(i) as number;

/** `info` under another shape; the memory is the same, and is still `info`'s. */
export const reshaped = (info: tf.TensorInfo, shape: number[]): tf.TensorInfo => ({ ...info, shape });

/**
 * Runs `body` with a `run` whose results are disposed at the end, but for the memory that `body` returns. Cheaper than
 * tf.tidy with ops: no tensors, no bookkeeping by the engine.
 */
export function compose<T extends tf.TensorInfo | tf.TensorInfo[]>(backend: WasmBackend, body: (run: Run) => T): T {
  const made: tf.TensorInfo[] = [];
  const run: Run = (name, inputs, attrs = {}) => {
    const kernel = tf.getKernel(name, NAME);
    const named = { ...inputs } as tf.NamedTensorInfoMap;
    const out = kernel.kernelFunc({ inputs: named, backend, attrs: attrs as tf.NamedAttrMap });
    const info = Array.isArray(out) ? (out[0] as tf.TensorInfo) : out;
    made.push(info);
    return info;
  };
  let kept: T | undefined;
  try {
    kept = body(run);
    return kept;
  } finally {
    const results = kept === undefined ? [] : Array.isArray(kept) ? kept : [kept];
    for (const { dataId } of results) {
      const own = made.findIndex((info) => info.dataId === dataId);
      if (own >= 0) made.splice(own, 1);
    }
    for (const { dataId } of made) backend.disposeData(dataId);
  }
}

/** Registers `kernel` in place of the one copied from upstream, whose setup it keeps. */
export function override(name: string, kernel: Kernel): void {
  const stock = tf.getKernel(name, NAME) as tf.KernelConfig | undefined;
  if (stock !== undefined) tf.unregisterKernel(name, NAME);
  tf.registerKernel({
    ...stock,
    kernelName: name,
    backendName: NAME,
    kernelFunc: ({ inputs, attrs, backend }) => kernel(inputs, attrs, backend as unknown as WasmBackend),
  });
}
