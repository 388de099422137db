import { checkNumber, type Schedule } from '@frugal/core';

/**
 * The same value at every step. It never asks for the length of the run.
 *
 * @param value - any finite number
 * @throws `CONFIG` if `value` is not a finite number
 * @example
 * ```ts
 * sgd({ learningRate: constant(0.1) }); // the same as sgd({ learningRate: 0.1 })
 * ```
 */
export function constant(value: number): Schedule {
  const checked = checkNumber('constant', 'value', value);
  return () => checked;
}
