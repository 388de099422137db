import type * as tf from '@tensorflow/tfjs';
import type { Loss } from './loss.js';
import type { Scope } from './scope.js';

/**
 * Passes over the batch of a step beside that of the step. All layers draw the random numbers that they draw in the step,
 * and weights that are not trained, such as moving statistics, keep their values.
 */
export interface Passes {
  /** The loss function of the run. */
  readonly loss: Loss;
  /** Loss of the batch with the weights as they are, with the penalties of regularisers, as the step has it. */
  evaluate(): number;
  /** Forward and back from the targets that `targets` makes of the outputs. Observers see it; its gradients are thrown
   * away. Without penalties of regularisers. */
  backward(targets: (outputs: tf.Tensor) => tf.Tensor): void;
}

/** Looks at the batch of a step before and after the weights change. Synchronous: `fit` has no place for it, other ranks are not awaited. */
export interface Probe {
  /** Name, for reports and errors. */
  readonly name: string;
  /** Called when the scope of the step is open, before its forward pass. */
  before?(passes: Passes, scope: Scope): void;
  /** Called when the weights have changed. */
  after?(passes: Passes, scope: Scope): void;
}
