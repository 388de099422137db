import { checkOptions, type UpdateLink } from '@frugal/core';
import { ADAM_OPTIONS, type AdamOptions, adaptive } from './adaptive.js';

export type { AdamForm, AdamOptions } from './adaptive.js';

/**
 * Adam:
 *
 *   m ← β1·m + (1 − β1)·g;   v ← β2·v + (1 − β2)·g²;   w ← w − η · m̂ / (√v̂ + ε),
 *   m̂ = m / (1 − Π β1),   v̂ = v / (1 − Π β2).
 *
 * g, m, v and w have the shape of the weight. Π is the product over the steps so far, which is β^t for a constant β and
 * stays exact for a scheduled one (the usual 1 − β_t^t does not).
 *
 * `form: 'sum'` is Demon Adam, to be used with `beta1: demon()`: m ← β1·m + g, not corrected. There the step falls from
 * η/(1 − β_init) to η in terms of m, so a good learning rate is about 10 times smaller than Adam's (for β_init = 0.9). v is
 * corrected in both forms.
 *
 * State: `adam/m/<weight>`, `adam/v/<weight>` and `adam/corrections`, two numbers of the host. Cost: about 12 FLOP per weight, one pass
 * over memory where the engine has a fused kernel.
 *
 * Source: Kingma, Ba 2015, arXiv 1412.6980, Algorithm 1; the sum form: Chen et al. 2019, arXiv 1910.04952 (Demon Adam).
 * An `update` link.
 *
 * @throws `CONFIG` for an unknown option or a value outside its range (a schedule's: when read, with its step)
 * @example
 * ```ts
 * adam({ learningRate: cosine({ initial: 1e-3 }) });
 * adam({ learningRate: 1e-4, beta1: demon(), form: 'sum' });
 * ```
 */
export function adam(options: AdamOptions = {}): UpdateLink {
  checkOptions('adam', options, ADAM_OPTIONS);
  return adaptive('adam', { ...options, weightDecay: 0, decays: () => false });
}
