import type { SiteReport } from './attach.js';
import type { StepContext } from './backpropagation.js';
import type { CheckpointOptions, Cursor } from './checkpoint.js';
import { batchCount, type Dataset } from './data.js';
import type { Evaluation } from './evaluate.js';
import type { Loss } from './loss.js';
import type { Method } from './method.js';
import type { Progress } from './progress.js';
import type { Communicator } from './communicator.js';
import type { Division } from './ranks.js';
import type { Link } from './link.js';
import type { Reporting } from './opened.js';
import type { Uncovered } from './sites.js';

/** How `train` trains. */
export interface TrainOptions {
  /**
   * The links between dW and W: those that change gradients, one that moves the weights, those that follow the weights, as in
   * `[clipByGlobalNorm({ norm: 1 }), sgd({ learningRate: 0.1 }), ema()]`. Beside a method that makes the whole step only the last
   * ones, or none: `[]`.
   */
  readonly optimizer: Link | readonly Link[];
  /** What the papers plug in. Default none: exact training. */
  readonly methods?: readonly Method[];
  /** Passes over the data. */
  readonly epochs: number;
  /** Examples per step: of all ranks together, or of this rank under division `'data'`. Default 64. */
  readonly batchSize?: number;
  /**
   * Parts in which a step's examples pass through, one after the other: the step of the whole batch, up to rounding, with the
   * activations of a part. Samples and dropout are drawn for each part; batch normalisation has the statistics of a part.
   * Default 1.
   */
  readonly accumulate?: number;
  /** Seed of order, dropout and sampling. Default 0. */
  readonly seed?: number;
  /** Evaluated after each epoch, outside the measured time. */
  readonly validation?: Dataset;
  /** Default: cross-entropy for classes, mean squared error for vectors. */
  readonly loss?: Loss;
  /**
   * Receives progress; `false` for none. Default: a bar on a terminal, JSON lines elsewhere, of rank 0 alone. Within an
   * epoch loss and accuracy are this rank's own, at its end those of all ranks.
   */
  readonly progress?: Progress | false;
  /** Title of the run in progress and errors. Default: the names of the methods, or `exact`. */
  readonly title?: string;
  /**
   * Stops the run after the current step, with a checkpoint if there is a folder for it. Where ranks exchange, all of them
   * pass a signal or none does; when it comes to one, all stop after the same step.
   */
  readonly signal?: AbortSignal;
  /** Write checkpoints, and go on from the newest one. */
  readonly checkpoint?: CheckpointOptions;
  /** Other ranks, for links and methods that exchange tensors. */
  readonly communicator?: Communicator;
  /**
   * How ranks that exchange divide the examples. `'batch'` (default): all ranks have the same data set, and rank r of n
   * trains on examples ⌊r·B/n⌋ … ⌊(r+1)·B/n⌋ of each batch of B, with share their number / B. `'data'`: each rank has a data
   * set and batches of its own, equally many, with share 1/n. Gradients weighted by `scope.share` add up to that of all.
   */
  readonly division?: Division;
}

/** One epoch of a run. */
export interface EpochReport {
  /** Epoch, from 1. */
  readonly epoch: number;
  /** Mean training loss, over the examples of all ranks. */
  readonly loss: number;
  /** Training accuracy while the weights moved, for classification. */
  readonly accuracy?: number;
  /** Loss and accuracy on the validation set; with ranks, of the mean of their models. */
  readonly validation?: Evaluation;
  /** The same of each rank's own model, in the order of ranks; only where their trainable weights differ. */
  readonly nodes?: readonly Evaluation[];
  /** Seconds of training, without validation and checkpoints. */
  readonly seconds: number;
  /** Values of the hyper-parameters in the last step. */
  readonly hyperparameters: Readonly<Record<string, number>>;
}

/** What a run did. */
export interface TrainReport {
  /** Title of the run. */
  readonly title: string;
  /** The training set and where it came from. */
  readonly data: { readonly name: string; readonly origin: string };
  /** Every epoch, also those before a resume. */
  readonly epochs: readonly EpochReport[];
  /** Optimizer steps of the whole run. */
  readonly steps: number;
  /** Seconds of training. */
  readonly seconds: number;
  /** Multiply-adds per site, of the steps made by this call. */
  readonly sites: readonly SiteReport[];
  /** Trainable weights that no method could reach. */
  readonly uncovered: readonly Uncovered[];
  /** The engine, in words. */
  readonly engine: string;
  /** What a link or a method of the run told of itself at the end, as in `report.of(allReduceLink).bytes`. */
  of<Report>(description: Reporting<Report>): Report;
  /** Kernels that ran in plain JavaScript during training, by name, with the number of calls. */
  readonly fallbacks: Readonly<Record<string, number>>;
}

/** One run of `train`: the parts that its steps share. */
export interface Run extends StepContext {
  readonly data: Dataset;
  readonly options: TrainOptions & { readonly batchSize: number; readonly seed: number };
  readonly totalSteps: number;
  /** The ranks among which the trainer divides its work; one where there is nothing to divide. */
  readonly ranks: Communicator;
  /** All ranks of the run, also where a method divides its own work: they write one checkpoint together. */
  readonly everyone: Communicator;
  readonly division: Division;
  readonly progress: Progress;
  readonly history: EpochReport[];
}

/** What an epoch has summed up so far. */
export type Sums = Pick<Cursor, 'lossSum' | 'correct' | 'seen' | 'seconds'>;

/** Sums at the beginning of an epoch. */
export const NOTHING: Sums = { lossSum: 0, correct: 0, seen: 0, seconds: 0 };

/** The cursor of a run at a place. Nothing in it depends on the number of ranks, unless each has data of its own. */
export function cursorAt(run: Run, epoch: number, batch: number, step: number, sums: Sums): Cursor {
  const { seed, batchSize, epochs } = run.options;
  const batches = batchCount(run.data, { batchSize });
  return { step, epoch, batch, seed, batchSize, examples: run.data.length, batches, epochs, ...sums };
}
