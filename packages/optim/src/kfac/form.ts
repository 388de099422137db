import type { LinearAlgebra, Matrix } from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';

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
  /** The numbers as tensors, which are the caller's. */
  open(solved: Float32Array, n: number): tf.Tensor[];
  /** P of ∇ [a, g] and what `open` gave of A and G. */
  precondition(gradient: tf.Tensor2D, a: readonly tf.Tensor[], g: readonly tf.Tensor[], damping: number): tf.Tensor2D;
}
