import { checkChoice, checkOptions, FrugalError, type Site } from '@frugal/core';
import { FEEDBACK_OPTIONS, type FeedbackMethod, feedbackMethod, type FeedbackOptions } from './feedback.js';
import { forwardProduct } from './forward-product.js';
import { floatSource, LAWS, type Scale, scaleOf } from './matrix.js';

/**
 * Where the feedback matrices come from; m is the number of values per example of the layer that receives the feedback.
 * - `uniform`: U(−1/√m, 1/√m), as in Nøkland's code.
 * - `gaussian`: N(0, 1/m).
 * - `forwardProduct`: W_{i+1}·…·W_L as they are at the first step of the run, so that a linear network begins with
 *   back-propagation. For plain chains of dense layers only, seen in the model's graph: between two of them may stand
 *   activations and dropout, as the activations of the layers themselves; a shortcut, a normalisation, a nested model or a
 *   layer that is not trained is refused. Kept in checkpoints.
 */
export type FeedbackKind = 'uniform' | 'gaussian' | 'forwardProduct';

/** Options of {@link dfa}. */
export interface DfaOptions extends FeedbackOptions {
  /** Where the matrices come from. Default `uniform`. */
  readonly feedback?: FeedbackKind;
  /** Factor of the matrices, for all layers or for each: under SGD it sets the layer's learning rate. Default 1. */
  readonly scale?: Scale;
}

/** How a DFA method differs from {@link dfa}. */
export interface DfaVariant {
  readonly name: string;
  readonly source: string;
  readonly accepts: (site: Site) => boolean;
  readonly chained: boolean;
}

/** The names of {@link DfaOptions}. */
export const DFA_OPTIONS = [...FEEDBACK_OPTIONS, 'feedback', 'scale'] as const;

/** Makes a DFA method with matrices of floats. */
export function floatFeedback({ accepts, ...variant }: DfaVariant, options: DfaOptions): FeedbackMethod {
  const { name } = variant;
  const kinds = [...Object.keys(LAWS), 'forwardProduct'] as FeedbackKind[];
  const kind = checkChoice(name, 'feedback', options.feedback ?? 'uniform', kinds);
  const { skip, shared = false } = options;
  const scale = scaleOf(name, options.scale ?? 1);
  const acts = (site: Site): boolean => accepts(site) && !(skip?.(site) ?? false);
  const parts = { ...variant, accepts: acts, options, signs: false };
  if (kind !== 'forwardProduct') return feedbackMethod({ ...parts, matrices: floatSource(LAWS[kind], scale, shared) });
  if (shared || skip) {
    throw new FrugalError(
      'CONFIG',
      `${name}: expected neither shared nor skip with feedback 'forwardProduct', whose matrices are products along the whole chain. Leave them out.`,
    );
  }
  return feedbackMethod({ ...parts, matrices: forwardProduct(name, acts, scale) });
}

const SOURCE =
  'Nøkland: Direct Feedback Alignment Provides Learning in Deep Neural Networks, NeurIPS 2016, arXiv 1609.01596, equation 8';

/**
 * Direct feedback alignment: every layer hears the error of the output, through a fixed random matrix, in place of what
 * back-propagation hands down:
 *   δh_i = e·B_iᵀ  in place of  δh_i = δz_{i+1}·W_{i+1}ᵀ,   e = ∂L/∂z of the output before its softmax
 * with e [N, C], B_i [m, C] and m the values per example of h_i, the x of site i+1; the result has the shape of x, also
 * that of an image. The output layer learns from e itself. Below x the tape goes on as ever, so the derivatives of
 * activation, pooling, normalisation and dropout between two sites are exact. At a join (a shortcut), the feedback of every
 * branch that ends in a site is added, and an identity branch hands on what comes from above.
 *
 * Biased: the angle to the gradient falls below 90° as the weights align with B. Layers of convolutions hardly align; see
 * {@link cdfa}. With relu, weights that begin at zero never move; with tanh they do, from the second step on.
 *
 * Cost: N·C·m multiply-adds in place of N·K·M. The matrices are drawn from (seed of the run, site), so that a resumed run
 * has the same ones. Both `attachment.report()` and the method's report, `report.of(method)`, count the product, at
 * convolutions too. Not together with another rule that replaces dX at the same site.
 *
 * @param options - see {@link DfaOptions}
 * @throws FrugalError `CONFIG`
 * @example
 * ```ts
 * await train(mlp({ hidden: [800, 800] }), data.train, { methods: [dfa()], optimizer, epochs: 3 });
 * ```
 */
export function dfa(options: DfaOptions = {}): FeedbackMethod {
  checkOptions('dfa', options, DFA_OPTIONS);
  return floatFeedback({ name: 'dfa', source: SOURCE, accepts: () => true, chained: false }, options);
}
