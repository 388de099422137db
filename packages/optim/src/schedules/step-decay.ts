import { checkNumber, checkOptions, FrugalError, type Schedule } from '@frugal/core';
import { progress } from './progress.js';

/** Options of {@link stepDecay}. */
export interface StepDecayOptions {
  /** Value before the first drop. */
  readonly initial: number;
  /** Every drop multiplies by this, ≥ 0. Default 0.1. */
  readonly factor?: number;
  /** Where the drops are, as fractions of the run in [0, 1]. Default [0.5, 0.75]. */
  readonly at?: readonly number[];
}

/**
 * Step decay: initial · factor^n, where n counts the fractions in `at` that t = step / total has reached. A drop at 0.5
 * of 100 steps acts from step 50 on, as a milestone of PyTorch's MultiStepLR does.
 *
 * Defaults: ×0.1 at 50 % and 75 %, the step baseline of the Demon paper (arXiv 1910.04952).
 *
 * @throws `CONFIG` for an unknown option or a value outside its range; when read, if the run has no known length
 * @example
 * ```ts
 * sgd({ learningRate: stepDecay({ initial: 0.1, at: [0.35, 0.75, 0.9] }), momentum: 0.9 });
 * ```
 */
export function stepDecay(options: StepDecayOptions): Schedule {
  checkOptions('stepDecay', options, ['initial', 'factor', 'at']);
  const initial = checkNumber('stepDecay', 'initial', options.initial);
  const factor = checkNumber('stepDecay', 'factor', options.factor ?? 0.1, { min: 0 });
  const at: unknown = options.at ?? [0.5, 0.75];
  if (!Array.isArray(at))
    throw new FrugalError('CONFIG', 'stepDecay: expected at to be an array of fractions in [0, 1].');
  const drops = at.map((value: unknown, index) => checkNumber('stepDecay', `at[${index}]`, value, { min: 0, max: 1 }));
  return (clock) => {
    const t = progress(clock);
    return initial * factor ** drops.filter((drop) => t >= drop).length;
  };
}
