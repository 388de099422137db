import type { LinearAlgebra, Matrix } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** A way to apply the inverse of A ⊗ G. What it makes of one factor is a vector of numbers, which can travel. */
export interface Form {
  /** Name, as the option has it. */
  readonly name: 'eigen' | 'inverse';
  /** Numbers that it makes of a factor [n, n]. */
  length(n: number): number;
  /**
   * Begins to decompose a factor, on another thread where there is one; the function that is returned waits for it.
   *
   * @param damping - what is added to the diagonal of this factor, for a form that needs it now
   */
  start(algebra: LinearAlgebra, factor: Matrix, damping: number): () => Float32Array;
  /** The numbers of k factors of one size as tensors, stacked along their first axis; they are the caller's. */
  open(solved: readonly Float32Array[], n: number): tf.Tensor[];
  /**
   * P of k gradients ∇ [k, a, g] and what `open` gave of their A and G: in products of stacks. `moments` [k, a, g] stand in place
   * of λ_A·λ_Gᵀ, where a form has these.
   */
  precondition(
    gradients: tf.Tensor3D,
    a: readonly tf.Tensor[],
    g: readonly tf.Tensor[],
    damping: number,
    moments?: tf.Tensor3D,
  ): tf.Tensor3D;
}

/** Numbers from `from` to `to` of each vector as one tensor. */
export function stacked(
  solved: readonly Float32Array[],
  [from, to]: readonly [number, number],
  shape: readonly number[],
): tf.Tensor {
  const all = new Float32Array(solved.length * (to - from));
  for (const [i, values] of solved.entries()) all.set(values.subarray(from, to), i * (to - from));
  return tf.tensor(all, [solved.length, ...shape]);
}
