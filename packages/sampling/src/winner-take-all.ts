import type { Method } from '@frugal/core';
import { samplingMethod, type SamplingOptions } from './rule.js';
import { chooseWinners, inclusionProbabilities } from './selection.js';
import { chooseWinnersOnDevice } from './selection-device.js';

const SOURCE =
  'Liu et al.: Winner-Take-All Column Row Sampling for Memory Efficient Adaptation of Language Model, NeurIPS 2023, arXiv 2305.15265';

/**
 * Winner-take-all column-row sampling (WTA-CRS): the pairs C with the largest p_i = w_i/S, w_i = |A_i|·|B_i|, S = Σ w_i, are
 * kept as they are, and k − |C| draws with replacement come from the others:
 *   C ≈ Σ_{i in C} A_i B_i + Σ_{t=1..k−|C|} (1 − P_C)/((k − |C|)·p_{i_t}) · A_{i_t} B_{i_t},  P_C = Σ_{i in C} p_i
 * with |C| minimising (1 − P_C)/(k − |C|). A pair lowers that bound as long as (k − |C|)·w_i ≥ Σ of what is left, so C is
 * what the water-filling of {@link bernoulli} makes certain, and the scale of a drawn pair is 1/(its inclusion probability).
 * Unbiased for each product; the variance is (S_R² − |R|²)/(k − |C|) for the sum R of the other pairs, S_R = Σ of their w_i.
 *
 * On an engine where reading takes time, as the tensorflow engine, winners and draws are found there: each draw is multiplied
 * for itself.
 *
 * Cost against exact: at most k/n of the multiply-adds of each sampled product, plus one pass over both operands. The paper
 * samples only dW, over the batch: `mode: 'backward'`.
 *
 * @param options - see {@link SamplingOptions}
 * @throws FrugalError `CONFIG`
 */
export function winnerTakeAll(options: SamplingOptions): Method {
  return samplingMethod(
    {
      name: 'winnerTakeAll',
      source: SOURCE,
      unbiased: true,
      by: 'pairs',
      choose: (weights, k, random) => chooseWinners(inclusionProbabilities(weights, k), k, random),
      device: chooseWinnersOnDevice,
    },
    options,
  );
}
