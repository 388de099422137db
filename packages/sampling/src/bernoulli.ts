import type { Method } from '@frugal/core';
import { samplingMethod, type SamplingOptions } from './rule.js';
import { chooseBernoulli, inclusionProbabilities } from './selection.js';

const SOURCE =
  'Adelman, Levy, Hakimi, Silberstein: Faster Neural Network Training with Approximate Tensor Operations, NeurIPS 2021, arXiv 1805.08079, section 3 (Bernoulli-CRS)';

/**
 * Bernoulli-CRS: each pair is kept independently with probability p_i and scaled by 1/p_i,
 *   C ≈ Σ_i (Z_i/p_i) A_i B_i,  p_i = min(1, w_i/c) with Σ p_i = k,  w_i = |A_i|·|B_i|.
 * Unbiased for each product, with E|C~ − C|² = Σ (1 − p_i)/p_i·w_i², least for these p_i. The authors' code clips without
 * re-normalising and mixes in 0.1/n; this is the exact water-filling. A draw of no pair gives zero, as unbiasedness asks.
 *
 * How many pairs it keeps is random, so the host must know which: on an engine where reading takes time, as the tensorflow
 * engine, each sampled product waits for its norms. {@link winnerTakeAll} and {@link columnRow} do not.
 *
 * Cost against exact: about k/n of the multiply-adds of each sampled product, plus one pass over both operands.
 *
 * @param options - see {@link SamplingOptions}
 * @throws FrugalError `CONFIG`
 */
export function bernoulli(options: SamplingOptions): Method {
  return samplingMethod(
    {
      name: 'bernoulli',
      source: SOURCE,
      unbiased: true,
      by: 'pairs',
      choose: (weights, k, random) => chooseBernoulli(inclusionProbabilities(weights, k), random),
    },
    options,
  );
}
