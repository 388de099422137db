import { checkInteger, checkNumber, checkOptions, movingAverage, type WeightsLink } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** Options of {@link lookahead}. */
export interface LookaheadOptions {
  /** k ≥ 1: steps of the update between two steps of the slow weights. Default 5 (the paper). */
  readonly every?: number;
  /** α in (0, 1]: how far the slow weights go towards the fast ones; 1 is the update alone. Default 0.8 (the authors' code). */
  readonly alpha?: number;
}

/**
 * Lookahead: slow weights φ follow k steps of the update, which then goes on from them,
 *
 *   every k-th step:  φ ← φ + α·(W − φ),  W ← φ.
 *
 * The velocity of the update goes on as it is, the first of the paper's three ways. Validation and the model at the end
 * have φ (under `fit` after `optimizer.finish()`).
 *
 * Defaults: k = 5, α = 0.8, as in the authors' code; the paper's text has α = 0.5 and 0.8. State: `lookahead/slow/<weight>`, a second
 * copy of the trainable weights. Cost: 4 FLOP per weight in each k-th step. A `weights` link: it stands after the update.
 *
 * Source: Zhang, Lucas, Hinton, Ba 2019, arXiv 1907.08610, Algorithm 1.
 *
 * @throws `CONFIG` for an unknown option or a value outside its range
 * @example
 * ```ts
 * await train(model, data, { optimizer: [adam(), lookahead()], epochs: 5 });
 * ```
 */
export function lookahead(options: LookaheadOptions = {}): WeightsLink {
  checkOptions('lookahead', options, ['every', 'alpha']);
  const every = checkInteger('lookahead', 'every', options.every ?? 5, { min: 1 });
  const alpha = checkNumber('lookahead', 'alpha', options.alpha ?? 0.8, { min: 0, aboveMin: true, max: 1 });
  return {
    kind: 'weights',
    name: 'lookahead',
    open({ params }) {
      // Copies: the weights change in place.
      const slow = params.map(({ value }) => tf.tidy(() => tf.variable(tf.mul(value, 1), false)));
      return {
        moved({ clock }) {
          if ((clock.step + 1) % every !== 0) return;
          for (const [i, { value }] of params.entries()) {
            const own = slow[i] as tf.Variable;
            movingAverage(own, value, 1 - alpha);
            value.assign(tf.mul(own, 1));
          }
        },
        settled: () => new Map(params.map(({ name }, i) => [name, slow[i] as tf.Variable])),
        state: () => new Map(params.map(({ name }, i) => [`lookahead/slow/${name}`, slow[i] as tf.Variable])),
        dispose: () => tf.dispose(slow),
      };
    },
  };
}
