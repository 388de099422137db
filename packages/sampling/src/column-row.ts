import type { Method } from '@frugal/core';
import { samplingMethod, type SamplingOptions } from './rule.js';
import { chooseDraws, drawProbabilities } from './selection.js';
import { chooseDrawsOnDevice } from './selection-device.js';

const SOURCE =
  'Drineas, Kannan, Mahoney: Fast Monte Carlo Algorithms for Matrices I, 2006; Adelman et al., NeurIPS 2021, arXiv 1805.08079, section 2';

/**
 * Column-row sampling (CRS): k independent draws with replacement with the optimal p_i = w_i/S, w_i = |A_i|·|B_i|, S = Σ w_i:
 *   C ≈ Σ_{t=1..k} A_{i_t} B_{i_t} / (k·p_{i_t})
 * Unbiased for each product, with E|C~ − C|² = (S² − |C|²)/k. Repeated draws are multiplied once, with the sum of their
 * scales. Where no pair has weight the product runs exact.
 *
 * On an engine where reading takes time, as the tensorflow engine, the draws are made there: each is multiplied for itself, and
 * where no pair has weight all count alike.
 *
 * Cost against exact: at most k/n of the multiply-adds of each sampled product, plus one pass over both operands.
 *
 * @param options - see {@link SamplingOptions}
 * @throws FrugalError `CONFIG`
 */
export function columnRow(options: SamplingOptions): Method {
  return samplingMethod(
    {
      name: 'columnRow',
      source: SOURCE,
      unbiased: true,
      by: 'pairs',
      choose: (weights, k, random) => chooseDraws(drawProbabilities(weights), k, random),
      device: chooseDrawsOnDevice,
    },
    options,
  );
}
