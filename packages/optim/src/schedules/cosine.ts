import { checkNumber, checkOptions, type Schedule } from '@frugal/core';
import { progress } from './progress.js';

/** Options of {@link cosine}. */
export interface CosineOptions {
  /** Value at step 0. */
  readonly initial: number;
  /** Value at step `total` and after it. Default 0. */
  readonly final?: number;
}

/**
 * Half a cosine: final + (initial − final) · ½(1 + cos πt), with t = step / total held in [0, 1]. No restarts.
 *
 * Source: Loshchilov, Hutter 2017, arXiv 1608.03983, eq. 5 with one period; PyTorch's CosineAnnealingLR with
 * T_max = total.
 *
 * @throws `CONFIG` for an unknown option or a value that is no finite number; when read, if the run has no known length
 * @example
 * ```ts
 * sgd({ learningRate: cosine({ initial: 0.1 }), momentum: 0.9 });
 * ```
 */
export function cosine(options: CosineOptions): Schedule {
  checkOptions('cosine', options, ['initial', 'final']);
  const initial = checkNumber('cosine', 'initial', options.initial);
  const final = checkNumber('cosine', 'final', options.final ?? 0);
  return (clock) => {
    const weight = (1 + Math.cos(Math.PI * progress(clock))) / 2;
    return weight * initial + (1 - weight) * final;
  };
}
