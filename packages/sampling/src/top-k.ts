import { checkChoice, FrugalError, type Method } from '@frugal/core';
import { samplingMethod, type SamplingOptions } from './rule.js';
import { chooseTop } from './selection.js';
import { chooseTopOnDevice } from './selection-device.js';

/** Options of {@link topK}. */
export interface TopKOptions extends SamplingOptions {
  /**
   * What is largest: `'pairs'`, w_i = |A_i|·|B_i|, which needs the examples; or `'weights'`, w_i = |B_i| with B the weight of
   * the layer, so that ranks with equal weights and different examples choose the same channels without a word, and send
   * only their gradients. Not in mode `backward`, where dW has no weights to choose by. Default `'pairs'`.
   */
  readonly by?: 'pairs' | 'weights';
}

const SOURCE =
  'Adelman, Levy, Hakimi, Silberstein: Faster Neural Network Training with Approximate Tensor Operations, NeurIPS 2021, arXiv 1805.08079, section 3';

/**
 * Keeps the k pairs with the largest w_i = |A_i|·|B_i| of a product C = Σ_i A_i B_i, unscaled:
 *   C ≈ Σ_{i in top k} A_i B_i
 * with A_i a column of the left operand and B_i the matching row of the right one. For zero-centred independent factors it
 * has the least mean squared error of all scaled sums of k pairs. Biased: for factors of one sign (dense positive inputs
 * without normalisation) it loses their mean; use {@link bernoulli} there.
 *
 * With `by: 'weights'`, the multi-node form of the paper, the k largest |B_i| are kept. It does not look at A, so it errs more
 * where inputs differ in size, and a NaN in an input that is not chosen does not show in this product.
 *
 * On an engine where reading takes time, as the tensorflow engine, the choice is made there, from norms in float32: weights
 * closer than their rounding may change places.
 *
 * Cost against exact: k/n of the multiply-adds of each sampled product, plus one pass over both operands for the norms; by
 * weights over one.
 *
 * @param options - see {@link TopKOptions}
 * @throws FrugalError `CONFIG`
 * @example
 * ```ts
 * await train(lenet(), data.train, { methods: [topK({ keep: 0.5 })], optimizer, epochs: 3 });
 * ```
 */
export function topK(options: TopKOptions): Method {
  const { by = 'pairs', ...rest } = options;
  checkChoice('topK', 'by', by, ['pairs', 'weights']);
  if (by === 'weights' && rest.mode === 'backward') {
    throw new FrugalError(
      'CONFIG',
      "topK: expected mode 'through' or 'blackBox' with by 'weights' but received 'backward', whose dW has no weights to choose by. Drop one of the two.",
    );
  }
  return samplingMethod(
    { name: 'topK', source: SOURCE, unbiased: false, by, choose: chooseTop, device: chooseTopOnDevice },
    rest,
  );
}
