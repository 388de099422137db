import type * as tf from '@tensorflow/tfjs';
import { attach, type Attachment } from './attach.js';
import { oneStep } from './backpropagation.js';
import { type Chain, chain, linksOf } from './chain.js';
import { crossEntropy, checkLoss } from './loss.js';
import { clockAt } from './schedule.js';
import type { Batch, StepReport } from './step.js';
import type { TrainOptions } from './run.js';

/** How a {@link stepper} steps: the part of {@link TrainOptions} that concerns one step. */
export interface StepperOptions
  extends Pick<TrainOptions, 'optimizer' | 'methods' | 'loss' | 'seed' | 'title' | 'communicator'> {
  /** Optimizer steps of the whole run; needed by schedules that end. */
  readonly totalSteps?: number;
}

/** Single training steps, for loops of your own. */
export interface Stepper {
  /** The opened model: sites, report. */
  readonly attachment: Attachment;
  /** The links between dW and W. */
  readonly links: Chain;
  /** Makes one step on a batch, which stays the caller's. */
  step(batch: Batch): Promise<StepReport>;
  /** Gives the model back as it was and frees the optimizer's state. */
  dispose(): void;
}

/**
 * What `train` does for each batch, without its loop over the data.
 *
 * @throws FrugalError as {@link train} does
 * @example
 * ```ts
 * const { step, dispose } = stepper(model, { optimizer: sgd({ learningRate: 0.1 }) });
 * for (const batch of batches(data, { batchSize: 32 })) console.log((await step(batch)).loss);
 * dispose();
 * ```
 */
export function stepper(model: tf.LayersModel, options: StepperOptions): Stepper {
  const { methods = [], loss = crossEntropy, seed = 0, title = 'step', communicator, totalSteps } = options;
  checkLoss(model, loss);
  const links = chain(linksOf(methods, options.optimizer));
  const attachment = attach(model, ...methods);
  links.init(attachment.params);
  let count = 0;
  return {
    attachment,
    links,
    async step(batch) {
      const scope = attachment.begin(clockAt(count, totalSteps), {
        seed,
        rank: communicator?.rank ?? 0,
        logits: loss.logits,
      });
      const report = await oneStep(
        { model, attachment, links, loss, title, options: { ...(communicator && { communicator }) } },
        batch,
        scope,
      );
      count++;
      return report;
    },
    dispose() {
      attachment.detach();
      links.dispose();
    },
  };
}
