import type { Method } from '@frugal/core';
import { samplingMethod, type SamplingOptions } from './rule.js';
import { chooseTop } from './selection.js';

const SOURCE =
  'Adelman, Levy, Hakimi, Silberstein: Faster Neural Network Training with Approximate Tensor Operations, NeurIPS 2021, arXiv 1805.08079, section 3';

/**
 * Keeps the k pairs with the largest w_i = |A_i|·|B_i| of a product C = Σ_i A_i B_i, unscaled:
 *   C ≈ Σ_{i in top k} A_i B_i
 * with A_i a column of the left operand and B_i the matching row of the right one. For zero-centred independent factors it
 * has the least mean squared error of all scaled sums of k pairs. Biased: for factors of one sign (dense positive inputs
 * without normalisation) it loses their mean; use {@link bernoulli} there.
 *
 * Cost against exact: k/n of the multiply-adds of each sampled product, plus one pass over both operands for the norms.
 *
 * @param options - see {@link SamplingOptions}
 * @throws FrugalError `CONFIG`
 * @example
 * ```ts
 * await train(lenet(), data.train, { methods: [topK({ keep: 0.5 })], optimizer, epochs: 3 });
 * ```
 */
export function topK(options: SamplingOptions): Method {
  return samplingMethod({ name: 'topK', source: SOURCE, unbiased: false, weighted: true, choose: chooseTop }, options);
}
