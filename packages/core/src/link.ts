import type * as tf from '@tensorflow/tfjs';
import type { Opened, Reporting, RunContext } from './opened.js';
import type { Schedule } from './schedule.js';
import type { Scope } from './scope.js';
import type { Site } from './site.js';

/** A weight as the chain sees it. */
export interface Param {
  /** Name of the weight in its model, as in `conv1/kernel`: the key of updates and of optimizer state, stable over processes. */
  readonly name: string;
  /** The weight. */
  readonly value: tf.Variable;
  /** The site it belongs to, as kernel or bias. */
  readonly site?: Site;
}

/** Gradients by weight name. A weight that took no part in the step has none. */
export type Updates = ReadonlyMap<string, tf.Tensor>;

/** A `gradient` link of a run. */
export interface OpenedGradient<Report = unknown> extends Opened<Report> {
  /** The new gradients. Runs inside one `tf.tidy`. */
  transform(gradients: Updates, scope: Scope): Map<string, tf.Tensor>;
}

/** An `exchange` link of a run. */
export interface OpenedExchange<Report = unknown> extends Opened<Report> {
  /** The new gradients, owned by the caller. */
  exchange(gradients: Updates, scope: Scope): Promise<Map<string, tf.Tensor>>;
}

/** An `update` link of a run. */
export interface OpenedUpdate<Report = unknown> extends Opened<Report> {
  /** Moves the weights that have a gradient. Runs inside one `tf.tidy`, unless the link exchanges. */
  apply(gradients: Updates, scope: Scope): void | Promise<void>;
  /** As of a `weights` link, for an update that is made of others. */
  settled?(): ReadonlyMap<string, tf.Tensor>;
}

/** A `weights` link of a run. */
export interface OpenedWeights<Report = unknown> extends Opened<Report> {
  /** Looks at the weights after a step has moved them, and may change them. Runs inside one `tf.tidy`. */
  moved(scope: Scope): void;
  /** What validation and the end of the run use in place of the weights, by weight name; borrowed. Default: the weights. */
  settled?(): ReadonlyMap<string, tf.Tensor>;
}

/** dW → dW on this rank: clipping, K-FAC. */
export interface GradientLink<Report = unknown> extends Reporting<Report> {
  /** Where it stands: before the update. */
  readonly kind: 'gradient';
  /** Opens it for one run. */
  open(context: RunContext): OpenedGradient<Report>;
}

/** dW → dW together with other ranks. It must be awaited, so `fit` refuses it. */
export interface ExchangeLink<Report = unknown> extends Reporting<Report> {
  /** Where it stands: before the update. */
  readonly kind: 'exchange';
  /** Opens it for one run. */
  open(context: RunContext): OpenedExchange<Report>;
}

/** The rule that moves the weights: sgd, adam. A chain has exactly one. */
export interface UpdateLink<Report = unknown> extends Reporting<Report> {
  /** Where it stands: after all gradients, before the weights links. */
  readonly kind: 'update';
  /** Does it exchange with other ranks while it moves the weights? Then it must be awaited, and `fit` refuses it. */
  readonly exchanges?: boolean;
  /** The learning rate of a weight; undefined for one that it does not move. */
  rateOf(param: Param): Schedule | undefined;
  /** The links inside, of an update that is made of others. */
  readonly parts?: readonly Link[];
  /** Opens it for one run. */
  open(context: RunContext): OpenedUpdate<Report>;
}

/** Follows the weights after they moved: averages of weights, lookahead. */
export interface WeightsLink<Report = unknown> extends Reporting<Report> {
  /** Where it stands: after the update. */
  readonly kind: 'weights';
  /** Opens it for one run. */
  open(context: RunContext): OpenedWeights<Report>;
}

/**
 * A link of the chain between dW and W: an immutable description that each run opens for itself. Its kind says where it may
 * stand: any number of `gradient` and `exchange` links, one `update`, any number of `weights` links.
 */
export type Link<Report = unknown> =
  | GradientLink<Report>
  | ExchangeLink<Report>
  | UpdateLink<Report>
  | WeightsLink<Report>;

/** A link of a run. */
export type OpenedLink = OpenedGradient | OpenedExchange | OpenedUpdate | OpenedWeights;
