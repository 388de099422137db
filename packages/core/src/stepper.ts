import * as tf from '@tensorflow/tfjs';
import { attach, type Attachment } from './attach.js';
import { oneStep } from './backpropagation.js';
import { type Chain, chain, linksOf } from './chain.js';
import { checkChoice } from './check.js';
import type { Communicator } from './communicator.js';
import { partOf } from './data.js';
import { linearAlgebra } from './linalg/linear-algebra.js';
import { crossEntropy, checkLoss } from './loss.js';
import { clockAt } from './schedule.js';
import type { Batch, StepReport } from './step.js';
import { type Division, ranksOf, shareWeights } from './ranks.js';
import type { TrainOptions } from './run.js';

/** How a {@link stepper} steps: the part of {@link TrainOptions} that concerns one step. */
export interface StepperOptions
  extends Pick<TrainOptions, 'optimizer' | 'methods' | 'loss' | 'seed' | 'title' | 'communicator' | 'division'> {
  /** Optimizer steps of the whole run; needed by schedules that end. */
  readonly totalSteps?: number;
}

/** Single training steps, for loops of your own. */
export interface Stepper {
  /** The opened model: sites, report. */
  readonly attachment: Attachment;
  /** The links between dW and W. */
  readonly links: Chain;
  /**
   * Makes one step on a batch, which stays the caller's. Ranks that exchange all give the same batch, and each trains on its
   * part; under division `'data'` each gives its own. The report is of what this rank trained on.
   */
  step(batch: Batch): Promise<StepReport>;
  /** Gives the model back as it was and frees the optimizer's state. */
  dispose(): void;
}

/**
 * What `train` does for each batch, without its loop over the data. With ranks that exchange, the first step gives all of
 * them the weights of rank 0, and makes the state of the links after that.
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
  const division = checkChoice('stepper', 'division', options.division ?? 'batch', ['batch', 'data']);
  checkLoss(model, loss);
  const links = chain(linksOf(methods, options.optimizer));
  const ranks = ranksOf(links, methods, communicator);
  const attachment = attach(model, ...methods);
  // Links may start from the weights, which other ranks have not given yet.
  if (ranks.size === 1) links.init(attachment.params);
  const context = { model, attachment, links, loss, title, options: { ...(communicator && { communicator }) } };
  let count = 0;
  return {
    attachment,
    links,
    async step(batch) {
      if (count === 0) await linearAlgebra();
      if (count === 0 && ranks.size > 1) {
        await shareWeights(model, ranks);
        links.init(attachment.params);
      }
      const part = partFor(batch, division, ranks);
      const scope = attachment.begin(clockAt(count, totalSteps), {
        seed,
        rank: communicator?.rank ?? 0,
        share: part.share,
        logits: loss.logits,
      });
      try {
        const report = await oneStep(context, part, scope);
        count++;
        return report;
      } finally {
        if (part.xs !== batch.xs) tf.dispose([part.xs, part.ys]);
      }
    },
    dispose() {
      attachment.detach();
      links.dispose();
    },
  };
}

/** What one rank trains on of the batch that it was given. */
function partFor(batch: Batch, division: Division, ranks: Communicator): Batch & { readonly share: number } {
  const { xs, ys } = batch;
  if (ranks.size === 1) return { xs, ys, share: 1 };
  if (division === 'data') return { xs, ys, share: 1 / ranks.size };
  const { from, to, share } = partOf(xs.shape[0] as number, ranks);
  return { xs: tf.slice(xs, from, to - from), ys: tf.slice(ys, from, to - from), share };
}
