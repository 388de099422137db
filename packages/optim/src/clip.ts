import { checkOptions, type Hyper, hyper, type LocalTransform } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** Options of {@link clipByGlobalNorm}. */
export interface ClipByGlobalNormOptions {
  /** Longest allowed norm, > 0. */
  readonly norm: Hyper;
}

/**
 * Shortens all updates together when they are too long: u ← u · min(1, c / ‖u‖), ‖u‖² = Σ over all weights of Σ u².
 * The direction stays. Shapes stay. Non-finite updates stay non-finite, so that the check of the step still sees them.
 *
 * No default: c depends on the model. No state. Cost: 3 FLOP per weight; the norm is not read back. Put it before the
 * optimizer, where updates still are gradients.
 *
 * Source: Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063, Algorithm 1.
 *
 * @throws `CONFIG` for an unknown option or a norm that is not above 0 (a schedule's: when read, with its step)
 * @example
 * ```ts
 * attached.optimizer([clipByGlobalNorm({ norm: 1 }), adam()], { totalSteps });
 * ```
 */
export function clipByGlobalNorm(options: ClipByGlobalNormOptions): LocalTransform {
  checkOptions('clipByGlobalNorm', options, ['norm']);
  const limit = hyper('clipByGlobalNorm', 'norm', options.norm, { min: 0, aboveMin: true });
  return {
    kind: 'local',
    name: 'clipByGlobalNorm',
    init: () => undefined,
    update(updates, _params, { clock }) {
      const norm = limit(clock);
      const squares = [...updates.values()].map((u) => u.square().sum());
      if (squares.length === 0) return new Map();
      const factor = tf.div(norm, tf.maximum(tf.addN(squares).sqrt(), norm));
      return new Map([...updates].map(([name, u]) => [name, u.mul(factor)]));
    },
    state: () => new Map(),
    hyperparameters: ({ clock }) => ({ clipNorm: limit(clock) }),
    dispose: () => undefined,
  };
}
