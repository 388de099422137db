import { loadAddon } from './addon.js';

/** Loops over float32 vectors. `weightedSum` of `@frugal/core` is the interface for people. */
export interface VectorLoops {
  /** Most parts of one sum. */
  readonly maxParts: number;
  /**
   * into[i] ← Σ_k weights[k]·parts[k][i], in the order of parts, in double and rounded once: the bits of the same sum in
   * JavaScript. `into` may be one of the parts, but not overlap one otherwise. Throws for lengths that differ.
   */
  weightedSum(into: Float32Array, weights: readonly number[], parts: readonly Float32Array[]): void;
}

/** Opens the loops; registers no backend. Throws, with the reason and what to do, when there is no addon. */
export function loadVectors(): VectorLoops {
  const addon = loadAddon();
  return {
    maxParts: 16,
    weightedSum: (into, weights, parts) => addon.weightedSum(into, Float64Array.from(weights), ...parts),
  };
}
