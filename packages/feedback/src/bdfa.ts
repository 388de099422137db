import { checkChoice, checkOptions, type Site } from '@frugal/core';
import { type Boundary, BOUNDARIES, isDense } from './cdfa.js';
import { FEEDBACK_OPTIONS, type FeedbackMethod, feedbackMethod, type FeedbackOptions } from './feedback.js';
import { type Scale, scaleOf, signSource } from './matrix.js';

/** Options of {@link bdfa}. */
export interface BdfaOptions extends FeedbackOptions {
  /**
   * s in B = s·sign(U): `mean` for E|U| = 1/(2√m), the mean size of the entries that {@link dfa} would have; or a number.
   * Default `mean`; 1 is plain ±1.
   */
  readonly scale?: 'mean' | Scale;
  /** What enters the convolutions, as in {@link cdfa}; `none` sends feedback to them too. Default `chained`. */
  readonly boundary?: Boundary | 'none';
}

const SOURCE =
  'Han, Yoo: Direct Feedback Alignment Based Convolutional Neural Network Training for Low-Power Online Learning Processor, ICCV Workshops 2019, arXiv 1901.01986, BDFA';

/**
 * Binary direct feedback alignment: {@link cdfa} with matrices of signs,
 *   dX = s·e·sign(U)ᵀ,   U the matrix that `dfa` draws from the same seed
 * with e [N, C], U [m, C]. Biased. Only the signs are stored, one bit each: 1/32 of the memory. e·sign(U)ᵀ needs N·m·(C−1)
 * additions and no multiplication, and s costs N·C; the method's report counts so. The native engine does it so, from the bits; other
 * engines unpack them for the step and run the product in floats: there it saves memory and no arithmetic. Not together with another
 * rule that replaces dX at the same site.
 *
 * @param options - see {@link BdfaOptions}
 * @throws FrugalError `CONFIG`
 */
export function bdfa(options: BdfaOptions = {}): FeedbackMethod {
  checkOptions('bdfa', options, [...FEEDBACK_OPTIONS, 'scale', 'boundary']);
  const boundary = checkChoice('bdfa', 'boundary', options.boundary ?? 'chained', [...BOUNDARIES, 'none']);
  const { scale = 'mean', skip, shared = false } = options;
  const gain = scale === 'mean' ? (_site: Site, m: number) => 0.5 / Math.sqrt(m) : scaleOf('bdfa', scale);
  return feedbackMethod({
    name: 'bdfa',
    source: SOURCE,
    accepts: (site) => (boundary === 'none' || isDense(site)) && !(skip?.(site) ?? false),
    matrices: signSource(gain, shared),
    signs: true,
    chained: boundary === 'chained',
    options,
  });
}
