import { checkOptions, type GradientLink, type Hyper, hyper } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** Options of {@link clipByGlobalNorm}. */
export interface ClipByGlobalNormOptions {
  /** Longest allowed norm, > 0. */
  readonly norm: Hyper;
}

/**
 * Shortens all gradients together when they are too long: g ← g · min(1, c / ‖g‖), ‖g‖² = Σ over all weights of Σ g².
 * The direction stays. Shapes stay. Non-finite gradients stay non-finite, so that the check of the step still sees them.
 *
 * No default: c depends on the model. No state. Cost: 3 FLOP per weight; the norm is not read back. A `gradient`
 * link: it stands before the update.
 *
 * Source: Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063, Algorithm 1.
 *
 * @throws `CONFIG` for an unknown option or a norm that is not above 0 (a schedule's: when read, with its step)
 * @example
 * ```ts
 * attached.optimizer([clipByGlobalNorm({ norm: 1 }), adam()], { totalSteps });
 * ```
 */
export function clipByGlobalNorm(options: ClipByGlobalNormOptions): GradientLink {
  checkOptions('clipByGlobalNorm', options, ['norm']);
  const limit = hyper('clipByGlobalNorm', 'norm', options.norm, { min: 0, aboveMin: true });
  return {
    kind: 'gradient',
    name: 'clipByGlobalNorm',
    open: () => ({
      transform(gradients, { clock }) {
        const norm = limit(clock);
        const squares = [...gradients.values()].map((g) => g.square().sum());
        if (squares.length === 0) return new Map();
        const factor = tf.div(norm, tf.maximum(tf.addN(squares).sqrt(), norm));
        return new Map([...gradients].map(([name, g]) => [name, g.mul(factor)]));
      },
      hyperparameters: ({ clock }) => ({ clipNorm: limit(clock) }),
    }),
  };
}
