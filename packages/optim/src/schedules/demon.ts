import { checkInteger, checkNumber, checkOptions, FrugalError, type Schedule } from '@frugal/core';
import { fraction } from './progress.js';

/** Options of {@link demon}. */
export interface DemonOptions {
  /** β_init, the momentum of the first step, in [0, 1). Default 0.9, the paper's; it found 0.95 slightly better. */
  readonly initial?: number;
  /** T, the OPTIMIZER STEPS (not epochs) after which the momentum is 0. Default: the length of the run. */
  readonly total?: number;
  /** d, steps with the momentum β_init before the decay begins. Default 0, the paper's. */
  readonly delay?: number;
}

/**
 * Demon, decaying momentum:
 *
 *   β_t = β_init (1 − s) / ((1 − β_init) + β_init (1 − s)),   s = (t − d) / (T − d) held in [0, 1].
 *
 * Equivalently 1/(1 − β_t) = 1 + (1 − s) · β_init/(1 − β_init): the share that a gradient has in all later steps,
 * and with it the effective learning rate η/(1 − β_t), falls in a straight line from η/(1 − β_init) to η (not to 0).
 * Use it as the `momentum` of `sgd` or the `beta1` of `adam({ form: 'sum' })`; with an averaging momentum
 * (`form: 'ema'`) the effective rate does not fall. The first step has exactly β_init; past T the value stays 0, where
 * the formula without the clamp would explode at t/T = 1/β_init.
 *
 * Biased: no (a schedule). Cost: none. Do not combine with a second momentum, and expect little from it in a run
 * shorter than about 20/(1 − β_init) steps: old velocity then outlives the schedule. The paper uses it with a constant
 * learning rate.
 *
 * Source: Chen, Wolfe, Li, Kyrillidis 2019 (ICASSP 2022), arXiv 1910.04952, the decay rule. `delay` is an
 * extension described with it.
 *
 * @throws `CONFIG` for an unknown option, a value outside its range or a delay that is not below T; when read without
 * `total`, if the run has no known length
 * @example
 * ```ts
 * sgd({ learningRate: 0.01, momentum: demon() });
 * adam({ learningRate: 1e-4, beta1: demon(), form: 'sum' });
 * ```
 */
export function demon(options: DemonOptions = {}): Schedule {
  checkOptions('demon', options, ['initial', 'total', 'delay']);
  const initial = checkNumber('demon', 'initial', options.initial ?? 0.9, { min: 0, max: 1, belowMax: true });
  const delay = checkInteger('demon', 'delay', options.delay ?? 0, { min: 0 });
  const fixed = options.total === undefined ? undefined : checkInteger('demon', 'total', options.total, { min: 1 });
  const length = (total: number): number => {
    if (total > delay) return total - delay;
    throw new FrugalError(
      'CONFIG',
      `demon: expected delay below the total of ${total} steps but received ${delay}. Shorten the delay.`,
    );
  };
  if (fixed !== undefined) length(fixed);
  return (clock) => {
    const span = length(fixed ?? clock.total);
    const left = 1 - fraction(clock.step - delay, span);
    return left === 1 ? initial : (initial * left) / (1 - initial + initial * left);
  };
}
