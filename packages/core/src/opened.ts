import type * as tf from '@tensorflow/tfjs';
import type { Communicator } from './communicator.js';
import type { Param } from './link.js';
import type { Schedule } from './schedule.js';
import type { Scope } from './scope.js';
import type { Site } from './site.js';

/**
 * State by name, as a checkpoint stores it and a test reads it: Variables on the engine, or numbers on the host. A restored
 * checkpoint writes into both in place.
 */
export type State = ReadonlyMap<string, tf.Variable | Float64Array>;

/**
 * What a run has made of a description: of a link or of a method. A description is an immutable value; whatever changes
 * lives here, from `open` to `dispose`, so two runs of one description share nothing.
 *
 * @typeParam Report - what it tells of itself
 */
export interface Opened<Report = unknown> {
  /** Loads what must be awaited, once, before the first step: a library, other ranks. */
  prepare?(): Promise<void>;
  /** What the next step depends on, by name. Default: nothing. */
  state?(): State;
  /** The values that its hyper-parameters have in a step, for logs. */
  hyperparameters?(scope: Scope): Record<string, number>;
  /** What it did. The run hands it out, also after its end: see `TrainReport.of`. */
  report?(): Report;
  /** Frees what it holds. */
  dispose?(): void;
}

/** What a run gives to everything that it opens. */
export interface RunContext {
  /** The model that is trained. */
  readonly model: tf.LayersModel;
  /** The trainable weights; for a link inside {@link groups}, those of its group. */
  readonly params: readonly Param[];
  /** The weights that training moves and gradients do not, as moving averages. */
  readonly statistics: readonly Param[];
  /** The weights whose products can be replaced. */
  readonly sites: readonly Site[];
  /** The ranks of the run; one where there are no others. */
  readonly communicator: Communicator;
  /**
   * The learning rate by which the chain's update moves a weight. Known once the chain is open, so a link asks in its steps.
   *
   * @throws FrugalError `CONFIG` where nothing moves the weight
   */
  rateOf(param: Param): Schedule;
  /** What the run has opened, by description: whoever opens something notes it here. */
  readonly opened: Map<Reporting<unknown>, Opened>;
  /** What belongs to a key in this run, made at the first call: what the parts of one method share. */
  once<T>(key: object, make: () => T): T;
}

/** What can be opened and tells `Report` of itself; the type of what a run is asked about. */
export interface Reporting<Report> {
  /** Name, for reports and errors. */
  readonly name: string;
  /** Opens it for one run. */
  open(context: RunContext): Opened<Report>;
}

/** Opens descriptions and notes them in the run. Where one of them refuses, those before it are freed. */
export function openAll<D extends Reporting<unknown>>(
  descriptions: readonly D[],
  context: RunContext,
): Map<D, ReturnType<D['open']>> {
  const opened = new Map<D, ReturnType<D['open']>>();
  try {
    for (const description of descriptions) {
      const own = description.open(context);
      opened.set(description, own as ReturnType<D['open']>);
      context.opened.set(description, own);
    }
  } catch (error) {
    for (const [description, own] of opened) {
      own.dispose?.();
      context.opened.delete(description);
    }
    throw error;
  }
  return opened;
}
