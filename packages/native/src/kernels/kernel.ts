import * as tf from '@tensorflow/tfjs';
import type { NativeBackend } from '../backend.js';
import type { Counters } from '../counters.js';

/** Name of the backend in TensorFlow.js. */
export const BACKEND = 'native';

/** The result of a kernel. */
export type Result = tf.TensorInfo | tf.TensorInfo[];

/** A native kernel. `undefined` means that it does not do this case: the JavaScript kernel does. */
export type Kernel<Inputs, Attrs> = (backend: NativeBackend, inputs: Inputs, attrs: Attrs) => Result | undefined;

/** The inputs of kernels with one and with two operands. */
export type One = { readonly x: tf.TensorInfo };
export type Two = { readonly a: tf.TensorInfo; readonly b: tf.TensorInfo };

/** Registers native kernels in front of TensorFlow.js's own. */
export class Registry {
  readonly #counters: Counters;

  constructor(counters: Counters) {
    this.#counters = counters;
  }

  /** Copies the kernels of the cpu backend; each run of one is counted. */
  copyCpuKernels(): void {
    for (const config of tf.getKernelsForBackend('cpu')) {
      if (config.kernelName.startsWith('Frugal')) continue;
      const cell = this.#counters.fallback(config.kernelName);
      const { kernelFunc } = config;
      this.#register({
        ...config,
        backendName: BACKEND,
        kernelFunc: (params) => {
          cell.count++;
          return kernelFunc(params);
        },
      });
    }
  }

  /** Puts a native kernel before the JavaScript kernel of the same name. */
  override<Inputs, Attrs>(kernelName: string, kernel: Kernel<Inputs, Attrs>): void {
    const stock = tf.getKernel(kernelName, BACKEND) as tf.KernelConfig | undefined;
    if (stock === undefined) throw new Error(`The cpu backend has no kernel ${kernelName} to fall back to.`);
    const fallBack = stock.kernelFunc;
    this.#register({
      ...stock,
      kernelFunc: (params) => {
        const { inputs, attrs, backend } = params as unknown as Params<Inputs, Attrs>;
        return kernel(backend, inputs, attrs) ?? fallBack(params);
      },
    });
  }

  /** Adds a kernel of Frugal's own. It has no JavaScript kernel behind it: what it cannot do is an error. */
  custom<Inputs extends object, Attrs>(kernelName: string, kernel: Kernel<Inputs, Attrs>): void {
    this.#register({
      kernelName,
      backendName: BACKEND,
      kernelFunc: (params) => {
        const { inputs, attrs, backend } = params as unknown as Params<Inputs, Attrs>;
        requireFloats(kernelName, inputs);
        const result = kernel(backend, inputs, attrs);
        if (result === undefined) throw new Error(`${kernelName}: shapes or attributes do not fit its contract.`);
        return result;
      },
    });
  }

  #register(config: tf.KernelConfig): void {
    if ((tf.getKernel(config.kernelName, BACKEND) as tf.KernelConfig | undefined) !== undefined) {
      tf.unregisterKernel(config.kernelName, BACKEND);
    }
    tf.registerKernel(config);
  }
}

interface Params<Inputs, Attrs> {
  readonly inputs: Inputs;
  readonly attrs: Attrs;
  readonly backend: NativeBackend;
}

function requireFloats(kernelName: string, inputs: object): void {
  for (const name in inputs) {
    const tensor = (inputs as Record<string, tf.TensorInfo | null | undefined>)[name];
    if (tensor === undefined || tensor === null) continue;
    if (!isFloat(tensor)) throw new Error(`${kernelName}: ${name} is ${tensor.dtype}, but must be float32.`);
    if (sizeOf(tensor.shape) === 0) throw new Error(`${kernelName}: ${name} is empty: [${tensor.shape.join(', ')}].`);
  }
}

/** Whether a tensor is float32. */
export function isFloat(tensor: tf.TensorInfo): boolean {
  return tensor.dtype === 'float32';
}

/** Number of elements. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (let i = 0; i < shape.length; i++) size *= shape[i] as number;
  return size;
}

/** Whether two shapes are equal. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** A shape seen around some adjacent axes: elements before them, along them, and after them. */
export interface Around {
  readonly outer: number;
  readonly count: number;
  readonly inner: number;
}

/** `shape` around the axes first … last. */
export function around(shape: readonly number[], first: number, last = first): Around {
  let outer = 1;
  let count = 1;
  let inner = 1;
  for (let i = 0; i < shape.length; i++) {
    const size = shape[i] as number;
    if (i < first) outer *= size;
    else if (i <= last) count *= size;
    else inner *= size;
  }
  return { outer, count, inner };
}

/** Axes as sorted non-negative numbers. */
export function sortedAxes(axis: number | readonly number[], shape: readonly number[]): number[] {
  return tf.util.parseAxisParam(axis as number | number[], shape as number[]).sort((a, b) => a - b);
}

/** Sorted axes as runs of adjacent ones: [0, 1, 3] is [0, 1] and [3, 3]. */
export function adjacentRuns(axes: readonly number[]): [first: number, last: number][] {
  const runs: [number, number][] = [];
  for (const axis of axes) {
    const run = runs.at(-1);
    if (run !== undefined && run[1] === axis - 1) run[1] = axis;
    else runs.push([axis, axis]);
  }
  return runs;
}
