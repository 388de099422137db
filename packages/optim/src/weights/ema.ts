import { checkOptions, type Hyper, hyper, movingAverage, type Scope, type WeightsLink } from '@frugal/core';
import { type AverageReport, openAverage } from './average.js';

/** Options of {@link ema}. */
export interface EmaOptions {
  /** What the average keeps of itself in a step, in [0, 1). Default 0.999 (Tarvainen and Valpola). */
  readonly decay?: Hyper;
}

/**
 * Exponential moving average of the weights:
 *
 *   W̄ ← d·W̄ + (1 − d)·W  after each step,  W̄ = W after the first.
 *
 * Training goes on with W; validation, and the model at the end of the run, have W̄ (under `fit` after `optimizer.finish()`).
 * Weights that gradients do not move, as the statistics of batch normalisation, are averaged alike. It starts from the first
 * weights, so early on it is one of them and not of zeros: no correction is needed.
 *
 * Default: d = 0.999. State: `ema/average/<weight>`, a second copy of all weights, and `ema/count`. Cost: 3 FLOP per weight, one
 * pass over memory. A `weights` link: it stands after the update.
 *
 * Source: Polyak, Juditsky 1992; with this d Tarvainen, Valpola 2017, arXiv 1703.01780 (the teacher).
 *
 * @throws `CONFIG` for an unknown option or a value outside its range (a schedule's: when read, with its step)
 * @example
 * ```ts
 * await train(model, data, { optimizer: [sgd({ learningRate: 0.1, momentum: 0.9 }), ema({ decay: 0.995 })], epochs: 10 });
 * ```
 */
export function ema(options: EmaOptions = {}): WeightsLink<AverageReport> {
  checkOptions('ema', options, ['decay']);
  const decay = hyper('ema', 'decay', options.decay ?? 0.999, { min: 0, max: 1, belowMax: true });
  const averaging = {
    name: 'ema',
    counts: () => true,
    kept: ({ clock }: Scope) => decay(clock),
    move: movingAverage,
  };
  return { kind: 'weights', name: 'ema', open: (context) => openAverage(averaging, context) };
}
