import seedrandom from 'seedrandom';

/** A seeded stream of random numbers. The same seed and path give the same numbers on every engine. */
export interface Stream {
  /** Uniform in [0, 1), 32 random bits. */
  next(): number;
  /** Uniform integer in [0, n). */
  below(n: number): number;
  /** Standard normal (Marsaglia's polar method). */
  normal(): number;
  /** A random order of 0 … n−1 (Fisher–Yates). */
  permutation(n: number): Uint32Array;
  /** A 32-bit seed, for kernels that make their own numbers. */
  seed(): number;
}

/**
 * The stream of a (seed, path): `stream(1, 'shuffle', epoch)`. Streams of different paths are independent;
 * making one again restarts it, so nothing has to be stored to resume a run.
 */
export function stream(seed: number, ...path: readonly (string | number)[]): Stream {
  const generator = seedrandom.alea([seed, ...path].join('/'));
  const next = (): number => generator();
  const below = (n: number): number => Math.floor(next() * n);
  const normal = (): number => {
    for (;;) {
      const u = 2 * next() - 1;
      const v = 2 * next() - 1;
      const s = u * u + v * v;
      if (s > 0 && s < 1) return u * Math.sqrt((-2 * Math.log(s)) / s);
    }
  };
  const permutation = (n: number): Uint32Array => {
    const order = new Uint32Array(n);
    for (let i = 0; i < n; i++) {
      const j = below(i + 1);
      order[i] = order[j] as number;
      order[j] = i;
    }
    return order;
  };
  return { next, below, normal, permutation, seed: () => below(2 ** 32) };
}
