import { totalmem } from 'node:os';
import type { Addon } from './addon.js';
import type { Counters } from './counters.js';

/** Below this length a typed array of V8's own heap is cheaper than pages of the system. */
const LEAST_EXTERNAL_LENGTH = 1024;

/**
 * Buffers that are used again. A training step makes the same sizes each time, so free lists by exact length are hit
 * always after the first step; without them most of the time would go to page faults.
 */
export class BufferPool {
  readonly #free = new Map<number, Float32Array[]>();
  readonly #addon: Addon;
  readonly #counters: Counters;
  /** Free bytes beyond this go back to the system: many different sizes must not fill the memory. */
  readonly #limit = totalmem() / 4;
  #freeBytes = 0;

  constructor(addon: Addon, counters: Counters) {
    this.#addon = addon;
    this.#counters = counters;
  }

  /** A buffer of `length` numbers with any content. */
  take(length: number): Float32Array {
    const values = this.#free.get(length)?.pop();
    if (values !== undefined) {
      this.#counters.reusedBuffers++;
      this.#freeBytes -= values.byteLength;
      return values;
    }
    this.#counters.newBuffers++;
    this.#counters.newBytes += 4 * length;
    if (length < LEAST_EXTERNAL_LENGTH) return new Float32Array(length);
    return new Float32Array(this.#addon.newBuffer(4 * length), 0, length);
  }

  /** Gives back a buffer that nobody reads or writes any more. */
  give(values: Float32Array): void {
    if (this.#freeBytes + values.byteLength > this.#limit) return;
    this.#freeBytes += values.byteLength;
    const list = this.#free.get(values.length);
    if (list === undefined) this.#free.set(values.length, [values]);
    else list.push(values);
  }

  /** Drops all free buffers. */
  clear(): void {
    this.#free.clear();
    this.#freeBytes = 0;
  }
}
