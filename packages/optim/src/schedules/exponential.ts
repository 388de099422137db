import { checkNumber, checkOptions, type Schedule } from '@frugal/core';
import { progress } from './progress.js';

/** Options of {@link exponential}. */
export interface ExponentialOptions {
  /** Value at step 0. */
  readonly initial: number;
  /** Rate over the WHOLE RUN, not per step or epoch: the value at the end is initial · e^−rate. Negative grows. */
  readonly rate: number;
}

/**
 * Exponential decay: initial · e^(−rate · t), with t = step / total held in [0, 1]. `rate` belongs to the whole run:
 * with rate = ln 100 ≈ 4.6 the run ends at a hundredth of `initial`, however many steps it has. For PyTorch's
 * ExponentialLR with γ per step, rate = −total · ln γ.
 *
 * @throws `CONFIG` for an unknown option or a value that is no finite number; when read, if the run has no known length
 * @example
 * ```ts
 * sgd({ learningRate: exponential({ initial: 0.1, rate: Math.log(100) }) });
 * ```
 */
export function exponential(options: ExponentialOptions): Schedule {
  checkOptions('exponential', options, ['initial', 'rate']);
  const initial = checkNumber('exponential', 'initial', options.initial);
  const rate = checkNumber('exponential', 'rate', options.rate);
  return (clock) => initial * Math.exp(-rate * progress(clock));
}
