import * as tf from '@tensorflow/tfjs';
import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import type { Addon } from './addon.js';
import { BufferPool } from './buffer-pool.js';
import type { Counters } from './counters.js';
import { type DataId, type Entry, NativeStorage, type PendingRows } from './storage.js';

/** Arrays up to this length are copied for whoever reads them, so that their buffers can be used again. */
const COPIED_LENGTH = 4096;

/** The values of a tensor that is not written out. */
const NOTHING = new Float32Array(0);

type BackendValues = ReturnType<MathBackendCPU['readSync']>;

/** Transfers between tensors and memory of one's own in which no buffer escapes (storage.ts). */
export interface CopyingBackend {
  /** into ← the values of a float32 tensor of that size. */
  copyInto(tensor: tf.TensorInfo, into: Float32Array): void;
  /** A float32 tensor of a copy of `values`. */
  copyOf(values: Float32Array, shape: readonly number[]): tf.TensorInfo;
}

/** The backend: TensorFlow.js's cpu backend, with recycled buffers that native kernels read and write in place. */
export class NativeBackend extends MathBackendCPU implements CopyingBackend {
  declare data: NativeStorage;
  readonly addon: Addon;
  readonly #pool: BufferPool;

  constructor(addon: Addon, counters: Counters) {
    super();
    this.addon = addon;
    this.data = new NativeStorage(this, (entry) => this.#writeOut(entry));
    this.#pool = new BufferPool(addon, counters);
  }

  /** A buffer for the result of a kernel, with any content. */
  buffer(length: number): Float32Array {
    return this.#pool.take(length);
  }

  /** Gives back a buffer that did not become a tensor. */
  release(values: Float32Array): void {
    this.#pool.give(values);
  }

  /** The tensor of a buffer from `buffer`. */
  tensor(values: Float32Array, shape: readonly number[]): tf.TensorInfo {
    const dataId = {};
    this.data.set(dataId, { values, dtype: 'float32', refCount: 1, pooled: true, escaped: false });
    return { dataId, shape: shape as number[], dtype: 'float32' };
  }

  /**
   * The matrix of `size` rows whose rows `indices` are those of `rows`, and zero elsewhere, not written out before somebody
   * reads it: an optimizer update never does.
   */
  pendingRows(rows: tf.Tensor, indices: Int32Array, size: number): tf.TensorInfo {
    const dataId = {};
    const pending = { rows: tf.keep(rows.clone()), indices, size };
    this.data.set(dataId, { values: NOTHING, dtype: 'float32', refCount: 1, pooled: true, escaped: false, pending });
    return { dataId, shape: rows.shape.with(0, size), dtype: 'float32' };
  }

  #writeOut(entry: Entry): void {
    const { rows, indices, size } = entry.pending as PendingRows;
    Reflect.deleteProperty(entry, 'pending');
    const columns = rows.shape[1] as number;
    const values = this.#pool.take(size * columns);
    this.addon.put(this.floats(rows), indices, null, values, 1, size, columns);
    entry.values = values;
    rows.dispose();
  }

  /** The values of a float32 tensor, in place: for the duration of a kernel only. */
  floats(tensor: tf.TensorInfo): Float32Array {
    const entry = this.data.peek(tensor.dataId);
    if (entry.values instanceof Float32Array) return entry.values;
    // JavaScript kernels may leave plain arrays.
    const converted = Float32Array.from(entry.values as ArrayLike<number>);
    entry.values = converted;
    return converted;
  }

  copyInto(tensor: tf.TensorInfo, into: Float32Array): void {
    into.set(this.floats(tensor));
  }

  copyOf(values: Float32Array, shape: readonly number[]): tf.TensorInfo {
    const copy = this.buffer(values.length);
    copy.set(values);
    return this.tensor(copy, shape);
  }

  /** Whether a tensor's data belong to it alone, so that they may be changed. */
  isSole(tensor: tf.TensorInfo): boolean {
    return this.data.peek(tensor.dataId).refCount === 1;
  }

  /** The values of a tensor, to be overwritten: `isSole` must hold. An array that somebody may hold is copied first. */
  writable(tensor: tf.TensorInfo): Float32Array {
    const entry = this.data.peek(tensor.dataId);
    const values = this.floats(tensor);
    Reflect.deleteProperty(entry, 'norms');
    if (entry.pooled === true && entry.escaped !== true) return values;
    const fresh = this.#pool.take(values.length);
    fresh.set(values);
    entry.values = fresh;
    entry.pooled = true;
    entry.escaped = false;
    return fresh;
  }

  /** Another tensor with the same data. */
  share(tensor: tf.TensorInfo, shape: readonly number[]): tf.TensorInfo {
    this.data.peek(tensor.dataId).refCount++;
    return { dataId: tensor.dataId, shape: shape as number[], dtype: tensor.dtype };
  }

  override write(values: BackendValues, _shape: number[], dtype: tf.DataType): DataId {
    const dataId = {};
    this.data.set(dataId, { values, dtype, refCount: 1 });
    return dataId;
  }

  override readSync(dataId: DataId): BackendValues {
    const entry = this.data.peek(dataId);
    const { values } = entry;
    const recyclable = entry.pooled === true && entry.escaped !== true;
    if (recyclable && values instanceof Float32Array && values.length <= COPIED_LENGTH) return values.slice();
    return super.readSync(dataId);
  }

  override refCount(dataId: DataId): number {
    return this.data.find(dataId)?.refCount ?? 0;
  }

  override incRef(dataId: DataId): void {
    this.data.peek(dataId).refCount++;
  }

  override decRef(dataId: DataId): void {
    const entry = this.data.find(dataId);
    if (entry !== undefined) entry.refCount--;
  }

  override disposeData(dataId: DataId, force = false): boolean {
    const entry = this.data.find(dataId);
    if (entry === undefined) return true;
    entry.refCount--;
    if (!force && entry.refCount > 0) return false;
    if (entry.complexTensorInfos !== undefined && entry.complexTensorInfos !== null) {
      this.disposeData(entry.complexTensorInfos.real.dataId, true);
      this.disposeData(entry.complexTensorInfos.imag.dataId, true);
    }
    this.data.delete(dataId);
    if (entry.pending !== undefined) {
      entry.pending.rows.dispose();
      return true;
    }
    if (entry.pooled === true && entry.escaped !== true) this.#pool.give(entry.values as Float32Array);
    return true;
  }

  override dispose(): void {
    this.#pool.clear();
  }
}
