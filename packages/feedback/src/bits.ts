/** The signs of `count` values, one bit each, 32 to a word from the lowest bit: 1 for a value ≥ 0. */
export function packSigns(count: number, next: () => number): Uint32Array {
  const bits = new Uint32Array(Math.ceil(count / 32));
  for (let i = 0; i < count; i++) {
    if (next() >= 0) bits[i >>> 5] = ((bits[i >>> 5] as number) | (1 << (i & 31))) >>> 0;
  }
  return bits;
}

/** The first `count` signs as +1 and −1. */
export function unpackSigns(bits: Uint32Array, count: number): Float32Array {
  const signs = new Float32Array(count);
  for (let i = 0; i < count; i++) signs[i] = ((bits[i >>> 5] as number) >>> (i & 31)) & 1 ? 1 : -1;
  return signs;
}
