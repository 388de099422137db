import { checkNumber, checkOptions, movingAverage, type Scope, type WeightsLink } from '@frugal/core';
import { type AverageReport, openAverage } from './average.js';

/** Options of {@link tailAverage}. */
export interface TailAverageOptions {
  /** Share of the run, in [0, 1), whose weights are left out; 0 averages all, as Polyak and Juditsky do. Default 0.5. */
  readonly start?: number;
}

/**
 * Tail averaging: the plain mean of the weights after each step of the last part of a run,
 *
 *   W̄ ← (n·W̄ + W)/(n + 1)  from `start` on.
 *
 * With a constant learning rate it removes the noise of the last iterates: for least squares it reaches the best possible rate,
 * 1/n in the number of averaged steps, once the start is forgotten. Training goes on with W; validation and the model at the end
 * have W̄ (under `fit` after `optimizer.finish()`). Statistics of batch normalisation are averaged alike.
 *
 * State: `tailAverage/average/<weight>`, a second copy of all weights, and `tailAverage/count`. Cost: 3 FLOP per weight and step
 * of the tail. A `weights` link: it stands after the update. Needs the length of the run.
 *
 * Source: Jain, Kakade, Kidambi, Netrapalli, Sidford 2018, arXiv 1610.03774; Polyak, Juditsky 1992.
 *
 * @throws `CONFIG` for an unknown option or a value outside its range
 */
export function tailAverage(options: TailAverageOptions = {}): WeightsLink<AverageReport> {
  checkOptions('tailAverage', options, ['start']);
  const start = checkNumber('tailAverage', 'start', options.start ?? 0.5, { min: 0, max: 1, belowMax: true });
  const averaging = {
    name: 'tailAverage',
    counts: ({ clock }: Scope) => clock.step >= start * clock.total,
    kept: (_scope: Scope, count: number) => 1 - 1 / count,
    move: movingAverage,
  };
  return { kind: 'weights', name: 'tailAverage', open: (context) => openAverage(averaging, context) };
}
