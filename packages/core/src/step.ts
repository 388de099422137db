import type * as tf from '@tensorflow/tfjs';

/** One batch: inputs [B, …] and targets [B, …]. Both are borrowed for the step. */
export interface Batch {
  /** Inputs. */
  readonly xs: tf.Tensor;
  /** Targets; one-hot for classes. */
  readonly ys: tf.Tensor;
  /** Share of these examples in the batch of all ranks; 1 unless told. */
  readonly share?: number;
}

/** What one step reports. */
export interface StepReport {
  /** Mean loss over the batch. */
  readonly loss: number;
  /** How many examples of the batch were classified correctly, where that is known. */
  readonly correct?: number;
}
