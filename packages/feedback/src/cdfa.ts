import { checkChoice, checkOptions, type Site } from '@frugal/core';
import { DFA_OPTIONS, type DfaOptions, floatFeedback } from './dfa.js';
import type { FeedbackMethod } from './feedback.js';

/**
 * What enters the convolutions from above.
 * - `direct`: e·B_0ᵀ at x of the lowest dense site.
 * - `chained`: dY·Wᵀ of the lowest dense site, whose dY comes from direct feedback.
 */
export type Boundary = 'direct' | 'chained';

/** The boundaries, for checks. */
export const BOUNDARIES = ['direct', 'chained'] as const;

/** Options of {@link cdfa}. */
export interface CdfaOptions extends DfaOptions {
  /**
   * What enters the convolutions from above. Default `chained`, which was ahead of `direct` on MNIST. The paper's text
   * leaves both readings open.
   */
  readonly boundary?: Boundary;
}

/** Is this a dense site, whose weight does not slide over its input as a filter does? */
export const isDense = (site: Site): boolean => !site.geometry.slides;

const SOURCE =
  'Han, Yoo: Direct Feedback Alignment Based Convolutional Neural Network Training for Low-Power Online Learning Processor, ICCV Workshops 2019, arXiv 1901.01986';

/**
 * Direct feedback alignment at the dense layers, back-propagation at the convolutions, which hardly align with random
 * feedback:
 *   dense sites:   dX = e·Bᵀ   (see {@link dfa})
 *   convolutions:  dX = dY·Wᵀ, beginning with what `boundary` says
 * with e [N, C], B [m, C]. Biased. Cost: N·C·m multiply-adds at each dense site in place of N·K·M. The lowest dense site
 * is the first that a step meets; dense layers inside the convolutional part belong into `skip`. Not together with another
 * rule that replaces dX at dense sites; at convolutions any rule goes.
 *
 * @param options - see {@link CdfaOptions}
 * @throws FrugalError `CONFIG`
 */
export function cdfa(options: CdfaOptions = {}): FeedbackMethod {
  checkOptions('cdfa', options, [...DFA_OPTIONS, 'boundary']);
  const boundary = checkChoice('cdfa', 'boundary', options.boundary ?? 'chained', BOUNDARIES);
  return floatFeedback({ name: 'cdfa', source: SOURCE, accepts: isDense, chained: boundary === 'chained' }, options);
}
