import {
  checkChoice,
  checkInteger,
  checkNumber,
  FrugalError,
  hyper,
  type Hyper,
  type Method,
  type Schedule,
} from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';
import type { Prior } from './members.js';
import { checkInflation, checkLocalisation, type Inflation, type Localisation } from './solve.js';

/** Options that {@link enkf} and {@link esmda} share. */
export interface EnsembleOptions {
  /** J ≥ 2. Default 100. Should exceed the number of parameters where memory allows. */
  readonly members?: number;
  /**
   * Standard deviation √R of the observation error, above 0: one number, or one per output. It acts as the learning
   * rate: too small, and the ensemble collapses. For classes 0.3 to 1.
   */
  readonly observationNoise: number | readonly number[];
  /** s > 0, the spread of the first ensemble. Default 0.3. */
  readonly spread?: number;
  /**
   * `centre` (default): m_j = m_c + s·N(0, 1), m_c the model's weights. `iid`: s·N(0, 1), which for odd activations has
   * no correlation between weights and outputs to learn from.
   */
  readonly prior?: 'centre' | 'iid';
  /**
   * What is compared with the targets. `outputs` (default): what the model gives, probabilities if it ends in softmax.
   * `logits`: what stands before a final softmax, regressed on one-hot targets.
   */
  readonly observe?: 'outputs' | 'logits';
  /** Widens the ensemble after each analysis. Default: not. */
  readonly inflation?: Inflation;
  /** Drops spurious entries of the gain. Default: not; for small batches and models only. */
  readonly localisation?: Localisation;
  /**
   * Share of parameters in [0, 1) that each analysis leaves alone: a random mask, one for all members, sets their
   * deviations from the ensemble mean to 0 before the members are run. So the ensemble leaves the span of its first
   * J − 1 deviations. It helps where the whole data set is used several times by an ensemble of about a third of the
   * number of parameters or less (0.3 to 0.5), and hurts with more members, and online. Default: none.
   *
   * Source: Liu, Reich & Tong 2023, arXiv 2308.16784, whose masks stand here in the analysis with perturbed observations.
   */
  readonly dropout?: Hyper;
  /** Receives warnings. Default: standard error. */
  readonly log?: (line: string) => void;
}

/** Names of {@link EnsembleOptions}. */
export const ENSEMBLE_OPTIONS = [
  'members',
  'observationNoise',
  'spread',
  'prior',
  'observe',
  'inflation',
  'localisation',
  'dropout',
  'log',
] as const;

/** What an ensemble method has done in a run, and the ensemble that it had then. */
export interface EnsembleReport {
  /** J. */
  readonly members: number;
  /** P, trainable numbers of one member. */
  readonly parameters: number;
  /** How members were run: all at once, or one by one; undefined before the first step. */
  readonly forward: 'batched' | 'loop' | undefined;
  /** Why they were run one by one. */
  readonly forwardReason?: string;
  /** The system that the last analysis solved. */
  readonly form?: 'ensemble' | 'observation';
  /** Share of the last gain that localisation kept. */
  readonly kept: number;
  /** Analyses done. */
  readonly analyses: number;
  /** Forward passes of single examples, over all members: what to compare with gradient descent. */
  readonly forwardPasses: number;
  /** Those of them that this rank did; all, without other ranks. */
  readonly forwardPassesHere: number;
  /** Mean standard deviation of a parameter over members: of the first ensemble, then after each analysis. */
  readonly spread: readonly number[];
  /**
   * (J − 1)·ρ² of a typical parameter with the outputs of the first batch; about 1 or less if there is only sampling
   * noise.
   */
  readonly correlationRatio?: number;
  /** What was warned of. */
  readonly warnings: readonly string[];
  /**
   * Mean and standard deviation [B, …] of the members' outputs, also after the run; both belong to the caller. The mean of
   * predictions is better than the prediction of the mean weights, which is what the model holds after training.
   *
   * @throws `CONFIG` in a report from before the first step
   */
  predict(xs: tf.Tensor): { mean: tf.Tensor; standardDeviation: tf.Tensor };
}

/** A method that trains an ensemble; its report can predict by it. */
export type EnsembleMethod = Method<EnsembleReport>;

/** {@link EnsembleOptions}, checked. */
export interface Settings extends Prior {
  readonly count: number;
  readonly variance: readonly number[];
  readonly logits: boolean;
  readonly dropout: Schedule | undefined;
  readonly log: (line: string) => void;
}

/** Checks {@link EnsembleOptions}. */
export function settle(owner: string, options: EnsembleOptions): Settings {
  const noise = [options.observationNoise].flat();
  if (noise.length === 0) throw new FrugalError('CONFIG', `${owner}: expected observationNoise but received none.`);
  const count = checkInteger(owner, 'members', options.members ?? 100, { min: 2 });
  checkInflation(owner, options.inflation);
  if (options.localisation) checkLocalisation(owner, options.localisation, count);
  const share = { min: 0, max: 1, belowMax: true };
  const { dropout } = options;
  return {
    count,
    dropout: dropout === undefined ? undefined : hyper(owner, 'dropout', dropout, share),
    variance: noise.map((std) => checkNumber(owner, 'observationNoise', std, { min: 0, aboveMin: true }) ** 2),
    spread: checkNumber(owner, 'spread', options.spread ?? 0.3, { min: 0, aboveMin: true }),
    kind: checkChoice(owner, 'prior', options.prior ?? 'centre', ['centre', 'iid']),
    logits: checkChoice(owner, 'observe', options.observe ?? 'outputs', ['outputs', 'logits']) === 'logits',
    log: options.log ?? ((line) => process.stderr.write(`${line}\n`)),
  };
}
