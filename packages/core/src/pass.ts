import type * as tf from '@tensorflow/tfjs';
import type { Loss } from './loss.js';
import type { Observer } from './rule.js';
import type { Scope } from './scope.js';
import type { Batch, StepReport } from './step.js';

/** How a {@link Pass} runs. */
export interface PassOptions {
  /** `'on'`: with the products that the methods replace, and the samples that the step itself draws; `'off'`: exact. Default `'on'`. */
  readonly rules?: 'on' | 'off';
  /**
   * Targets made of the outputs, which count as constants, in place of those of the batch. Then the loss has no penalties of
   * regularisers.
   */
  readonly targets?: (outputs: tf.Tensor) => tf.Tensor;
  /** What it runs over. Default: the batch of the step. */
  readonly batch?: Batch;
  /** Examples `from` up to, without, `to` of the batch. Default: all. */
  readonly examples?: readonly [from: number, to: number];
  /** Who looks at its products; of the methods' observers only those do that a rule needs. Default: nobody. */
  readonly observers?: readonly Observer[];
}

/**
 * One run of the model over a batch, in training mode, with the weights as they are. Looking changes nothing: it draws the
 * random numbers that the step draws, weights that are not trained keep their values, and no report counts it. Each member
 * runs it anew. Results are the caller's.
 */
export interface Pass {
  /** What the model gives. */
  outputs(): tf.Tensor;
  /** The loss, with penalties of regularisers as the step has them. */
  loss(): tf.Scalar;
  /** Forward and back: the loss, and its gradients by weight name. */
  gradients(): { readonly loss: tf.Scalar; readonly gradients: Map<string, tf.Tensor> };
}

/** A training step as probes and whole-step methods see it. */
export interface Step {
  /** The batch, which is borrowed. */
  readonly batch: Batch;
  /** What lives for the step. */
  readonly scope: Scope;
  /** The loss of the run. */
  readonly loss: Loss;
  /** A pass over the batch. */
  pass(options?: PassOptions): Pass;
}

/** Looks at the batch of a step before and after the weights change. Synchronous: `fit` has no place for it, other ranks are not awaited. */
export interface Probe {
  /** Name, for reports and errors. */
  readonly name: string;
  /** Called when the scope of the step is open, before its forward pass. */
  before?(step: Step): void;
  /** Called when the weights have changed. */
  after?(step: Step): void;
}

/** Seam 4: the whole step, for methods that need no backward pass or more than one. */
export interface WholeStep {
  /** Makes one step on a batch and changes the weights, alone or together with the other ranks of the run. */
  step(step: Step): Promise<StepReport>;
}
