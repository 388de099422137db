import { checkOptions, type Method, type Site } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { type Scale, scaleOf } from './matrix.js';

/** Options of {@link signSymmetry}. */
export interface SignSymmetryOptions {
  /** s: `mean` for the mean of |W|, taken anew in each step; or a number. Default `mean`. */
  readonly scale?: 'mean' | Scale;
  /** Sites whose dX stays dY·Wᵀ. Default none. */
  readonly skip?: (site: Site) => boolean;
}

const SOURCE =
  'Liao, Leibo, Poggio: How Important Is Weight Symmetry in Backpropagation?, AAAI 2016, arXiv 1510.05067, uniform sign-concordant feedback';

/**
 * Back-propagation by the signs of the weights:
 *   dX = s·dY·sign(W)ᵀ
 * with dY [N, M] and W [K, M], or the same of a convolution. Biased. The multiply-adds of the exact product, and a pass
 * over W; a baseline between {@link feedbackAlignment} and back-propagation. Not together with another rule that replaces
 * dX at the same site.
 *
 * @param options - see {@link SignSymmetryOptions}
 * @throws FrugalError `CONFIG`
 */
export function signSymmetry(options: SignSymmetryOptions = {}): Method {
  checkOptions('signSymmetry', options, ['scale', 'skip']);
  const { scale = 'mean', skip } = options;
  const factor = scale === 'mean' ? undefined : scaleOf('signSymmetry', scale);
  return {
    name: 'signSymmetry',
    source: SOURCE,
    open: () => ({
      rule: {
        name: 'signSymmetry',
        bias: 'biased',
        accepts: (site) => !(skip?.(site) ?? false),
        inputGrad({ site, exact }, dy, w, xShape) {
          const s = factor?.(site) ?? tf.mean(tf.abs(w));
          return exact.inputGrad(dy, tf.mul(tf.sign(w), s), xShape);
        },
      },
    }),
  };
}
