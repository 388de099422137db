import { FrugalError, type Param } from '@frugal/core';

/** Which weights weight decay acts on. */
export type DecayFilter = (param: Param) => boolean;

/** The default filter: matrices and convolution kernels (rank ≥ 2), but no biases and no gains. */
const isKernel: DecayFilter = (param) => param.value.shape.length >= 2;

/** The filter that was given, or the default one. Throws `CONFIG` if it is no function. */
export function decayFilter(owner: string, filter: DecayFilter | undefined): DecayFilter {
  if (filter === undefined) return isKernel;
  if (typeof filter === 'function') return filter;
  throw new FrugalError(
    'CONFIG',
    `${owner}: expected decay to be a function of a Param but received ${String(filter)}.`,
  );
}
