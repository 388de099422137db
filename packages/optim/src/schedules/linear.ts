import { checkNumber, checkOptions, type Schedule } from '@frugal/core';
import { progress } from './progress.js';

/** Options of {@link linear}. */
export interface LinearOptions {
  /** Value at step 0. */
  readonly initial: number;
  /** Value at step `total` and after it. Default 0. */
  readonly final?: number;
}

/**
 * A straight line: initial + (final − initial) · t, with t = step / total held in [0, 1]. The last step of the run
 * (total − 1) is one step short of `final`, so a rate that falls to 0 wastes no step.
 *
 * @throws `CONFIG` for an unknown option or a value that is no finite number; when read, if the run has no known length
 * @example
 * ```ts
 * adam({ learningRate: linear({ initial: 1e-3 }) });
 * ```
 */
export function linear(options: LinearOptions): Schedule {
  checkOptions('linear', options, ['initial', 'final']);
  const initial = checkNumber('linear', 'initial', options.initial);
  const final = checkNumber('linear', 'final', options.final ?? 0);
  return (clock) => {
    const t = progress(clock);
    return (1 - t) * initial + t * final;
  };
}
