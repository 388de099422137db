import { checkInteger, FrugalError } from '@frugal/core';
import { square, type Topology } from './topology.js';

const isPowerOfTwo = (size: number): boolean => (size & (size - 1)) === 0;
const dimensions = (size: number): number => 31 - Math.clz32(size);

/**
 * Changes from step to step: in step k the ranks exchange in pairs, i with i XOR 2^(k mod τ), τ = log₂ n, and both keep half. One
 * message a step and τ steps in a row are the exact average, as of `onePeerExponential`, but each step is SYMMETRIC, as
 * momentum over the exchange needs. Only for powers of 2. From 8 ranks on, `decentlam` also needs `lazy(onePeerHypercube())`:
 * a disagreement that two steps in a row wipe out (λ = 0) and the third does not touch (λ = 1) is driven up by momentum, by 1.05 a
 * step for 8 ranks and β = 0.9; with λ = ½ it falls by √β.
 *
 * @throws FrugalError `CONFIG` before the first step for another number of ranks
 */
export function onePeerHypercube(): Topology {
  const name = 'one-peer hypercube';
  const check = (size: number): number => {
    checkInteger(name, 'size', size, { min: 1 });
    if (isPowerOfTwo(size)) return size;
    throw new FrugalError(
      'CONFIG',
      `onePeerHypercube: expected a power of 2 of ranks but received ${size}. Start another number, or use symmetricExponential().`,
    );
  };
  const period = (size: number): number => Math.max(1, dimensions(check(size)));
  return {
    name,
    period,
    weights(size, step) {
      const mask = size === 1 ? 0 : 2 ** (step % period(size));
      return square(size, (i, j) => {
        if (mask === 0) return 1;
        return j === i || j === (i ^ mask) ? 0.5 : 0;
      });
    },
  };
}
