import * as tf from '@tensorflow/tfjs';
import type { Attachment } from './attach.js';
import { holdHost, nonFinite, oneStep, readOutcomes, type StepContext } from './backpropagation.js';
import type { Chain } from './chain.js';
import { checkChoice, checkInteger } from './check.js';
import type { Communicator } from './communicator.js';
import { partOf } from './data.js';
import { readsAreFree } from './engine/contract.js';
import { FrugalError } from './errors.js';
import { checkLoss, crossEntropy } from './loss.js';
import { openRun, prepareAll } from './open-run.js';
import type { Reporting } from './opened.js';
import { type Division, shareWeights } from './ranks.js';
import type { TrainOptions } from './run.js';
import { clockAt } from './schedule.js';
import { settle } from './settled.js';
import type { Batch, StepReport } from './step.js';

/** How a {@link stepper} steps: the part of {@link TrainOptions} that concerns one step. */
export interface StepperOptions
  extends Pick<
    TrainOptions,
    'optimizer' | 'methods' | 'loss' | 'seed' | 'title' | 'communicator' | 'division' | 'accumulate'
  > {
  /** Optimizer steps of the whole run; needed by schedules that end. */
  readonly totalSteps?: number;
}

/** Single training steps, for loops of your own. */
export interface Stepper {
  /** The opened model: sites, report. */
  readonly attachment: Attachment;
  /** The links between dW and W; with ranks that exchange, from the first step on. */
  readonly chain: Chain;
  /** Loads what the first step would: call it to keep that out of a measurement. */
  prepare(): Promise<void>;
  /**
   * Makes one step on a batch, which stays the caller's. Ranks that exchange all give the same batch, and each trains on its
   * part; under division `'data'` each gives its own. The report is of what this rank trained on, and is read from the engine
   * once the step is under way.
   */
  step(batch: Batch): Promise<StepReport>;
  /** What a link or a method tells of itself. */
  of<Report>(description: Reporting<Report>): Report;
  /** Gives the model what links behind the update have for it, as an average of its weights. */
  finish(): void;
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
  const { methods = [], loss = crossEntropy, communicator } = options;
  const division = checkChoice('stepper', 'division', options.division ?? 'batch', ['batch', 'data']);
  const accumulate = checkInteger('stepper', 'accumulate', options.accumulate ?? 1, { min: 1 });
  checkLoss(model, loss);
  const run = openRun('stepper', model, { methods, optimizer: options.optimizer, communicator });
  const { attachment, ranks } = run;
  // Links may start from the weights, which other ranks have not given yet.
  let chain = ranks.size === 1 ? openOrDetach(run) : undefined;
  let prepared: Promise<void> | undefined;
  const prepare = async (): Promise<void> => {
    await shareWeights(model, ranks);
    chain ??= run.openChain();
    await prepareAll(attachment, chain);
  };
  const opened = (): Chain => chain ?? notYet();
  const stepOn = stepsOf({ model, attachment, loss, accumulate }, options);
  return {
    attachment,
    get chain() {
      return opened();
    },
    prepare: () => (prepared ??= prepare()),
    async step(batch) {
      await (prepared ??= prepare());
      const part = partFor(batch, division, ranks);
      try {
        return await stepOn(opened(), part);
      } finally {
        if (part.xs !== batch.xs) tf.dispose([part.xs, part.ys]);
      }
    },
    of: (description) => attachment.of(description),
    finish: () => settle(attachment.context, opened().settled()),
    dispose() {
      attachment.detach();
      chain?.dispose();
    },
  };
}

type Fixed = Pick<StepContext, 'model' | 'attachment' | 'loss' | 'accumulate'>;

/** Makes one step after the other. */
function stepsOf(fixed: Fixed, { seed = 0, title = 'step', communicator, totalSteps }: StepperOptions) {
  let count = 0;
  return async (chain: Chain, part: Batch & { readonly share: number }): Promise<StepReport> => {
    const { attachment, loss } = fixed;
    const context = { ...fixed, chain, title, freeReads: readsAreFree(tf.getBackend()), options: {} };
    const begin = { seed, rank: communicator?.rank ?? 0, share: part.share, logits: loss.logits };
    const scope = attachment.begin(clockAt(count, totalSteps), begin);
    // The engine takes back its part by itself; the host hears of the loss only now.
    const undo = holdHost(context);
    const [report] = (await readOutcomes([await oneStep(context, part, scope)])) as [StepReport];
    if (!Number.isFinite(report.loss)) {
      undo();
      throw nonFinite(context, count, report.loss);
    }
    count++;
    return report;
  };
}

function openOrDetach(run: ReturnType<typeof openRun>): Chain {
  try {
    return run.openChain();
  } catch (error) {
    run.attachment.detach();
    throw error;
  }
}

function notYet(): never {
  throw new FrugalError(
    'CONFIG',
    'stepper: the chain of ranks that exchange is opened by the first step, when all have the same weights. Call await prepare(), or step, before.',
  );
}

/** What one rank trains on of the batch that it was given. */
function partFor(batch: Batch, division: Division, ranks: Communicator): Batch & { readonly share: number } {
  const { xs, ys } = batch;
  if (ranks.size === 1) return { xs, ys, share: 1 };
  if (division === 'data') return { xs, ys, share: 1 / ranks.size };
  const { from, to, share } = partOf(xs.shape[0] as number, ranks);
  return { xs: tf.slice(xs, from, to - from), ys: tf.slice(ys, from, to - from), share };
}
