import * as tf from '@tensorflow/tfjs';

/** What a kernel of this package needs of `BackendWasm`, whose own type hides half of it. */
export interface WasmBackend extends tf.KernelBackend {
  /** The Emscripten module. */
  readonly wasm: {
    readonly tfjs: {
      registerTensor(id: number, size: number, offset: number): void;
      disposeData(id: number): void;
    };
  };
  /** Every tensor of this heap. */
  readonly dataIdMap: {
    get(dataId: object): HeapEntry;
    set(dataId: object, entry: HeapEntry): void;
    delete(dataId: object): boolean;
  };
  /** The next number by which C++ knows a tensor. */
  dataIdNextNumber: number;
  /** Allocates a tensor, uninitialised without `values`. */
  makeOutput(
    shape: readonly number[],
    dtype: tf.DataType,
    offset?: number,
    values?: tf.backend_util.BackendValues,
  ): tf.TensorInfo;
  /** The memory of a tensor; the next allocation may detach it. */
  typedArrayFromHeap(info: tf.TensorInfo): Float32Array | Int32Array | Uint8Array;
}

/** One tensor of the wasm heap. */
export interface HeapEntry {
  readonly id: number;
  readonly memoryOffset: number;
  readonly shape: number[];
  readonly dtype: tf.DataType;
  refCount: number;
}

/** Mutable counts behind `PortableEngine.counters`. */
export interface Tally {
  fallbacks: Record<string, number>;
  newBuffers: number;
  newBytes: number;
}

/** The name under which the engine is registered. */
export const NAME = 'portable';

/** The number of elements of `shape`. */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** The memory of a float32 tensor; the next allocation may detach it, so allocate every output first. */
export const floats = (backend: WasmBackend, info: tf.TensorInfo): Float32Array =>
  backend.typedArrayFromHeap(info) as Float32Array;

type ReadSync = (dataId: object, start?: number, end?: number) => tf.backend_util.BackendValues;

/** A complex64 tensor lies on the heap as pairs; upstream's readSync refuses it (backend_wasm.ts 4.22, unknown dtype). */
function readPairs(backend: WasmBackend, entry: HeapEntry): Float32Array {
  const pairs = { dataId: {}, shape: [2 * sizeOf(entry.shape)], dtype: 'float32' as const };
  backend.dataIdMap.set(pairs.dataId, { ...entry, dtype: 'float32' });
  const values = floats(backend, pairs).slice();
  backend.dataIdMap.delete(pairs.dataId);
  return values;
}

/**
 * A second face of the stock backend: the same heap, tensors and C++ module, so that tensors pass between the two
 * without a copy, but its own counts. The module must be shared: each wasm kernel keeps its C++ function in a variable of
 * its file (tfjs-backend-wasm 4.22, kernels/*.ts `setup`), so that a second module would silently take over the first's.
 */
export function portableFace(stock: WasmBackend, tally: Tally): WasmBackend {
  const face = Object.create(stock) as WasmBackend;
  Object.defineProperty(face, 'dataIdNextNumber', {
    get: () => stock.dataIdNextNumber,
    set: (next: number) => {
      stock.dataIdNextNumber = next;
    },
  });
  const proto = Object.getPrototypeOf(stock) as { move: tf.KernelBackend['move']; readSync: ReadSync };
  face.move = function (this: WasmBackend, dataId, values, shape, dtype, refCount) {
    tally.newBuffers++;
    if (dtype !== 'string') tally.newBytes += sizeOf(shape) * tf.util.bytesPerElement(dtype);
    proto.move.call(this, dataId, values, shape, dtype, refCount);
  };
  const readSync: ReadSync = (dataId, start, end) => {
    const entry = stock.dataIdMap.get(dataId);
    return entry.dtype === 'complex64' ? readPairs(stock, entry) : proto.readSync.call(stock, dataId, start, end);
  };
  face.readSync = readSync as tf.KernelBackend['readSync'];
  face.read = ((dataId: object) => Promise.resolve(readSync(dataId))) as tf.KernelBackend['read'];
  // The heap belongs to 'wasm': removing this engine must leave it alive.
  face.dispose = () => undefined;
  return face;
}

/** A tensor that aliases `shape` elements of `of` from element `start`; release it with `dropView` before `of`. */
export function view(backend: WasmBackend, of: tf.TensorInfo, start: number, shape: number[]): tf.TensorInfo {
  const memoryOffset = backend.dataIdMap.get(of.dataId).memoryOffset + start * tf.util.bytesPerElement(of.dtype);
  const id = backend.dataIdNextNumber++;
  const dataId = { id };
  backend.dataIdMap.set(dataId, { id, memoryOffset, shape, dtype: of.dtype, refCount: 1 });
  backend.wasm.tfjs.registerTensor(id, sizeOf(shape), memoryOffset);
  return { dataId, shape, dtype: of.dtype };
}

/** Forgets a view without freeing the memory that it aliases. */
export function dropView(backend: WasmBackend, info: tf.TensorInfo): void {
  backend.wasm.tfjs.disposeData(backend.dataIdMap.get(info.dataId).id);
  backend.dataIdMap.delete(info.dataId);
}
