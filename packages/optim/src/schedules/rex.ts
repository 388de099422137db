import { checkNumber, checkOptions, type Schedule } from '@frugal/core';
import { progress } from './progress.js';

/** Options of {@link rex}. */
export interface RexOptions {
  /** Value at step 0. */
  readonly initial: number;
}

/**
 * REX: initial · (1 − t) / (½ + ½(1 − t)), with t = step / total held in [0, 1]. It is the curve of `demon` with
 * β_init = ½, used for the learning rate: above the straight line all the way, and 0 at the end.
 *
 * Source: Chen, Wolfe, Kyrillidis 2022 (MLSys), arXiv 2107.04197. No other constants.
 *
 * @throws `CONFIG` for an unknown option or a value that is no finite number; when read, if the run has no known length
 * @example
 * ```ts
 * sgd({ learningRate: rex({ initial: 0.1 }), momentum: 0.9 });
 * ```
 */
export function rex(options: RexOptions): Schedule {
  checkOptions('rex', options, ['initial']);
  const initial = checkNumber('rex', 'initial', options.initial);
  return (clock) => {
    const left = 1 - progress(clock);
    return (initial * left) / (0.5 + 0.5 * left);
  };
}
