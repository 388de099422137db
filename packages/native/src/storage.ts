import * as tf from '@tensorflow/tfjs';
import type { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';

type CpuStorage = MathBackendCPU['data'];
type CpuEntry = ReturnType<CpuStorage['get']>;

/** Key of a tensor's data. */
export type DataId = tf.TensorInfo['dataId'];

/** Rows of a matrix that is zero elsewhere: what `FrugalPut` returns until somebody needs the whole matrix. */
export interface PendingRows {
  /** The rows, as a tensor that is held for as long as they are pending. */
  readonly rows: tf.Tensor;
  /** Where they belong, ascending. */
  readonly indices: Int32Array;
  /** Rows of the whole matrix. */
  readonly size: number;
}

/** A tensor's data, with what the pool has to know about it. */
export interface Entry extends CpuEntry {
  /** The values are a buffer of the pool. */
  pooled?: boolean;
  /** Somebody outside the native kernels has seen the array, and may keep it: it is never used again. */
  escaped?: boolean;
  /** The values are not written out yet. */
  pending?: PendingRows;
  /** Squared norm of each row, kept up to date by the updates that change the values. */
  norms?: Float32Array;
}

/**
 * The data of the backend's tensors. Native kernels `peek`; everything else (JavaScript kernels, users' `dataSync`) goes
 * through `get`, which marks the entry as escaped. So what is not known to be safe is safe by default.
 */
export class NativeStorage extends tf.DataStorage<CpuEntry> {
  readonly #entries = new WeakMap<DataId, Entry>();
  readonly #move: (dataId: DataId) => void;
  readonly #writeOut: (entry: Entry) => void;
  #count = 0;

  constructor(backend: MathBackendCPU, writeOut: (entry: Entry) => void) {
    super(backend, tf.engine());
    this.#writeOut = writeOut;
    this.#move = (dataId) => tf.engine().moveData(backend, dataId);
  }

  /** The entry, which stays recyclable: the caller must not keep its values. Data of another backend are moved here. */
  peek(dataId: DataId): Entry {
    const entry = this.#entries.get(dataId);
    if (entry !== undefined) {
      if (entry.pending !== undefined) this.#writeOut(entry);
      return entry;
    }
    this.#move(dataId);
    const moved = this.#entries.get(dataId);
    if (moved === undefined) throw new Error('The native engine has no such tensor; was it disposed?');
    return moved;
  }

  /** The entry if the data are here; its values may be pending. */
  find(dataId: DataId): Entry | undefined {
    return this.#entries.get(dataId);
  }

  override get(dataId: DataId): Entry {
    const entry = this.peek(dataId);
    entry.escaped = true;
    return entry;
  }

  override set(dataId: DataId, entry: Entry): void {
    this.#count++;
    this.#entries.set(dataId, entry);
  }

  override has(dataId: DataId): boolean {
    return this.#entries.has(dataId);
  }

  override delete(dataId: DataId): boolean {
    this.#count--;
    return this.#entries.delete(dataId);
  }

  override numDataIds(): number {
    return this.#count;
  }
}
