import { type Clock, movingAverage, type Observer, type Scope, type State } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { Layer } from './layers.js';
import { type OnBackward, openObserver } from './observe.js';
import type { Settings } from './options.js';

/** A [a, a] and G [g, g] of a layer. */
export interface FactorPair<T extends tf.Tensor = tf.Tensor> {
  readonly a: T;
  readonly g: T;
}

/** The factors of all layers, in their order. */
export interface Factors {
  /** Computes the factors of a step, when it is one that updates them. */
  readonly observer: Observer;
  /** While false, the observer looks away. */
  watch(on: boolean): void;
  /** Does this step update factors? */
  due(clock: Clock): boolean;
  /** Makes the running averages. */
  init(layers: readonly Layer[]): void;
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
  state(): State;
  dispose(): void;
}

/** A without the row of ones of a bias that is not trained. */
const cut = (a: tf.Tensor, size: number): tf.Tensor => (a.shape[0] === size ? a : tf.slice(a, [0, 0], [size, size]));

const square = (n: number, start: Settings['start']): tf.Variable =>
  tf.tidy(() => tf.variable(start === 'identity' ? tf.eye(n) : tf.zeros([n, n]), false));

/** Variables for the factors of these layers. */
interface Pairs {
  readonly all: readonly FactorPair<tf.Variable>[];
  init(layers: readonly Layer[]): void;
  state(kind: string): [string, tf.Variable][];
  dispose(): void;
}

function createPairs(start: Settings['start']): Pairs {
  let names: readonly string[] = [];
  let all: FactorPair<tf.Variable>[] = [];
  const dispose = (): void => {
    for (const { a, g } of all) tf.dispose([a, g]);
    all = [];
  };
  return {
    get all() {
      return all;
    },
    init(layers) {
      dispose();
      names = layers.map(({ name }) => name);
      all = layers.map(({ a, g }) => ({ a: square(a, start), g: square(g, start) }));
    },
    state: (kind) =>
      all.flatMap(({ a, g }, i) => [
        [`kfac/${kind}A/${names[i]}`, a],
        [`kfac/${kind}G/${names[i]}`, g],
      ]),
    dispose,
  };
}

/** Makes the factors of a run. */
export function createFactors(settings: Settings, also?: OnBackward): Factors {
  const { start, decay, lossReduction } = settings;
  const due = (clock: Clock): boolean => clock.step % Math.max(1, Math.round(settings.factorEvery(clock))) === 0;
  const { observer, watch, sums } = openObserver(settings, due, also);
  const [averages, decomposed] = [createPairs(start), createPairs(start)];
  let layers: readonly Layer[] = [];
  const pairOf = ({ site, a: size }: Layer, scope: Scope): FactorPair[] => {
    const seen = sums(scope, site.name);
    if (!seen) return [];
    const { a, g, examples, positions } = seen;
    // dY of a mean loss is 1/B of the gradient of one example.
    const scale = lossReduction === 'mean' ? examples / positions : 1 / (examples * positions);
    return [{ a: tf.mul(cut(a, size), 1 / examples), g: tf.mul(g, scale) }];
  };
  return {
    observer,
    watch,
    due,
    init(of) {
      layers = of;
      for (const pairs of [averages, decomposed]) pairs.init(of);
    },
    batch(scope) {
      const pairs = layers.flatMap((layer) => pairOf(layer, scope));
      return pairs.length === layers.length ? pairs : undefined;
    },
    average(batch, clock, updates) {
      const alpha = start === 'identity' ? decay(clock) : Math.min(decay(clock), updates / (updates + 1));
      for (const [i, { a, g }] of averages.all.entries()) {
        movingAverage(a, (batch[i] as FactorPair).a, alpha);
        movingAverage(g, (batch[i] as FactorPair).g, alpha);
      }
    },
    averages: () => averages.all,
    decomposed: () => decomposed.all,
    remember() {
      for (const [i, pair] of decomposed.all.entries()) {
        const from = averages.all[i] as FactorPair;
        // Copies: the averages change in place.
        tf.tidy(() => (['a', 'g'] as const).forEach((side) => pair[side].assign(tf.add(from[side], 0))));
      }
    },
    state: () => new Map([...averages.state(''), ...decomposed.state('decomposed')]),
    dispose: () => [averages, decomposed].forEach((pairs) => pairs.dispose()),
  };
}
