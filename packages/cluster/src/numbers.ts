import type { FloatVector, Numbers, Reduction, WeightedSum } from '@frugal/core';

/** The type of numbers, as errors print it. */
export type NumberType = 'float32' | 'float64' | 'int32';

/** Type of an array. */
export function typeOf(values: Numbers): NumberType {
  if (values instanceof Float32Array) return 'float32';
  return values instanceof Float64Array ? 'float64' : 'int32';
}

/** An array of the type of `like`: zeros, or a view of `memory`. */
export function arrayLike<T extends Numbers>(like: T, length: number, memory?: ArrayBuffer): T {
  const type = like.constructor as new (buffer: ArrayBuffer, offset: number, length: number) => T;
  return new type(memory ?? new ArrayBuffer(length * like.BYTES_PER_ELEMENT), 0, length);
}

const BLOCK = 4096;

/**
 * Reduces arrays of equal length in the order given, element by element. Floats are added in float64 and rounded once;
 * int32 wraps, as in C. `into` may be one of the parts.
 *
 * @param sum - what adds floats
 */
export function reduceInOrder(parts: readonly Numbers[], reduction: Reduction, into: Numbers, sum: WeightedSum): void {
  if (reduction === 'sum' && !(into instanceof Int32Array)) {
    // All of one type, which a communicator has checked. Times 1 is exact.
    const weights = parts.map(() => 1);
    sum(into, weights, parts as readonly FloatVector[]);
  } else reduceInBlocks(parts, reduction, into);
}

/** In blocks, so that the float64 memory does not grow with the arrays. */
function reduceInBlocks(parts: readonly Numbers[], reduction: Reduction, into: Numbers): void {
  const block = new Float64Array(Math.min(BLOCK, into.length));
  for (let start = 0; start < into.length; start += BLOCK) {
    const length = Math.min(BLOCK, into.length - start);
    parts.forEach((part, index) => {
      for (let i = 0; i < length; i++) {
        const value = part[start + i] as number;
        const before = block[i] as number;
        if (index === 0) block[i] = value;
        else if (reduction === 'max') block[i] = Math.max(before, value);
        else if (reduction === 'min') block[i] = Math.min(before, value);
        else block[i] = (before + value) | 0;
      }
    });
    into.set(block.subarray(0, length), start);
  }
}
