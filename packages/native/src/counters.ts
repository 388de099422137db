/** What the engine has done since the last reset. */
export interface NativeCounters {
  /** Runs of TensorFlow.js's own JavaScript kernels on this backend, by kernel: each is a slow path. */
  readonly fallbacks: Readonly<Record<string, number>>;
  /** Buffers that had to be allocated. */
  readonly newBuffers: number;
  /** Bytes of those. */
  readonly newBytes: number;
  /** Buffers that were used again. */
  readonly reusedBuffers: number;
}

/** A counter that a kernel holds on to, so that counting is one addition. */
export interface Cell {
  count: number;
}

/** The counters of the engine. */
export class Counters {
  newBuffers = 0;
  newBytes = 0;
  reusedBuffers = 0;
  readonly #fallbacks = new Map<string, Cell>();

  /** The counter of fallbacks of a kernel. */
  fallback(kernelName: string): Cell {
    let cell = this.#fallbacks.get(kernelName);
    if (cell === undefined) {
      cell = { count: 0 };
      this.#fallbacks.set(kernelName, cell);
    }
    return cell;
  }

  /** A copy of the present counts. */
  snapshot(): NativeCounters {
    const used = [...this.#fallbacks].filter(([, cell]) => cell.count > 0);
    return {
      fallbacks: Object.fromEntries(used.map(([name, cell]) => [name, cell.count])),
      newBuffers: this.newBuffers,
      newBytes: this.newBytes,
      reusedBuffers: this.reusedBuffers,
    };
  }

  /** Sets all counts to zero. */
  reset(): void {
    for (const cell of this.#fallbacks.values()) cell.count = 0;
    this.newBuffers = 0;
    this.newBytes = 0;
    this.reusedBuffers = 0;
  }
}
