import { type Clock, movingAverage, type Scope, type Site } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { Layer } from './layers.js';
import type { Sums } from './observe.js';
import type { Settings } from './options.js';

/** A [a, a] and G [g, g] of a layer. */
export interface FactorPair<T extends tf.Tensor = tf.Tensor> {
  readonly a: T;
  readonly g: T;
}

/** What was seen of a site in a step. */
type SumsOf = (scope: Scope, site: Site) => Sums | undefined;

/** The factors of all layers, in their order. */
export interface Factors {
  /**
   * Factors of the examples of this step, normalised as in KFC: A = 1/B·Σ_b Σ_t a·aᵀ, G = 1/(B·T)·Σ_b Σ_t g·gᵀ over B examples
   * and T positions, g the gradient of one example's loss. Undefined where a layer was not seen. Inside `tf.tidy`.
   */
  batch(scope: Scope): FactorPair[] | undefined;
  /** average ← α·average + (1 − α)·batch; `updates` have been made before. */
  average(batch: readonly FactorPair[], clock: Clock, updates: number): void;
  /** The running averages. */
  averages(): readonly FactorPair<tf.Variable>[];
  /** What was last decomposed. */
  decomposed(): readonly FactorPair<tf.Variable>[];
  /** Remembers the averages as what was decomposed. */
  remember(): void;
  state(): Map<string, tf.Variable>;
  dispose(): void;
}

/** A without the row of ones of a bias that is not trained. */
const cut = (a: tf.Tensor, size: number): tf.Tensor => (a.shape[0] === size ? a : tf.slice(a, [0, 0], [size, size]));

const square = (n: number, start: Settings['start']): tf.Variable =>
  tf.tidy(() => tf.variable(start === 'identity' ? tf.eye(n) : tf.zeros([n, n]), false));

/** Variables for the factors of these layers. */
const pairsOf = (layers: readonly Layer[], start: Settings['start']): FactorPair<tf.Variable>[] =>
  layers.map(({ a, g }) => ({ a: square(a, start), g: square(g, start) }));

const stateOf = (
  kind: string,
  layers: readonly Layer[],
  pairs: readonly FactorPair<tf.Variable>[],
): [string, tf.Variable][] =>
  pairs.flatMap(({ a, g }, i) => [
    [`kfac/${kind}A/${layers[i]?.name}`, a],
    [`kfac/${kind}G/${layers[i]?.name}`, g],
  ]);

/** Makes the factors of a run for these layers, from what an observer sees. */
export function createFactors(settings: Settings, layers: readonly Layer[], seenOf: SumsOf): Factors {
  const { start, decay, lossReduction } = settings;
  const [averages, decomposed] = [pairsOf(layers, start), pairsOf(layers, start)];
  const pairOf = ({ site, a: size }: Layer, scope: Scope): FactorPair[] => {
    const seen = seenOf(scope, site);
    if (!seen) return [];
    const { a, g, examples, positions } = seen;
    // dY of a mean loss is 1/B of the gradient of one example.
    const scale = lossReduction === 'mean' ? examples / positions : 1 / (examples * positions);
    return [{ a: tf.mul(cut(a, size), 1 / examples), g: tf.mul(g, scale) }];
  };
  return {
    batch(scope) {
      const pairs = layers.flatMap((layer) => pairOf(layer, scope));
      return pairs.length === layers.length ? pairs : undefined;
    },
    average(batch, clock, updates) {
      const alpha = start === 'identity' ? decay(clock) : Math.min(decay(clock), updates / (updates + 1));
      for (const [i, { a, g }] of averages.entries()) {
        movingAverage(a, (batch[i] as FactorPair).a, alpha);
        movingAverage(g, (batch[i] as FactorPair).g, alpha);
      }
    },
    averages: () => averages,
    decomposed: () => decomposed,
    remember() {
      for (const [i, pair] of decomposed.entries()) {
        const from = averages[i] as FactorPair;
        // Copies: the averages change in place.
        tf.tidy(() => (['a', 'g'] as const).forEach((side) => pair[side].assign(tf.add(from[side], 0))));
      }
    },
    state: () => new Map([...stateOf('', layers, averages), ...stateOf('decomposed', layers, decomposed)]),
    dispose() {
      for (const { a, g } of [...averages, ...decomposed]) tf.dispose([a, g]);
    },
  };
}
