import { checkInteger, checkNumber, checkOptions, movingAverage, type Scope, type WeightsLink } from '@frugal/core';
import { type AverageReport, openAverage } from './average.js';

/** Options of {@link swa}. */
export interface SwaOptions {
  /** Steps between two weights that join the average: of one epoch, as in the paper, or of one cycle of the learning rate. */
  readonly every: number;
  /** Share of the run, in [0, 1), after which weights join. Default 0.75 (the paper's runs, of their budget). */
  readonly start?: number;
}

/**
 * Stochastic weight averaging: the plain mean of the weights at the ends of epochs, or of cycles, in the last part of a run,
 *
 *   W̄ ← (n·W̄ + W)/(n + 1)  after every `every`-th step from `start` on.
 *
 * It wants a learning rate that stays high or goes in cycles there, so that W wanders around a wide minimum; with a rate that
 * falls to zero all W are alike and W̄ is the last of them. Training goes on with W; validation and the model at the end
 * have W̄ (under `fit` after `optimizer.finish()`). Statistics of batch normalisation are averaged alike; the paper takes one more pass
 * over the data for them instead.
 *
 * State: `swa/average/<weight>`, a second copy of all weights, and `swa/count`. Cost: 3 FLOP per weight in each `every`-th
 * step. A `weights` link: it stands after the update. Needs the length of the run.
 *
 * Source: Izmailov, Podoprikhin, Garipov, Vetrov, Wilson 2018, arXiv 1803.05407, Algorithm 1.
 *
 * @throws `CONFIG` for an unknown option or a value outside its range
 */
export function swa(options: SwaOptions): WeightsLink<AverageReport> {
  checkOptions('swa', options, ['every', 'start']);
  const every = checkInteger('swa', 'every', options.every, { min: 1 });
  const start = checkNumber('swa', 'start', options.start ?? 0.75, { min: 0, max: 1, belowMax: true });
  const averaging = {
    name: 'swa',
    counts: ({ clock }: Scope) => clock.step + 1 > start * clock.total && (clock.step + 1) % every === 0,
    kept: (_scope: Scope, count: number) => 1 - 1 / count,
    move: movingAverage,
  };
  return { kind: 'weights', name: 'swa', open: (context) => openAverage(averaging, context) };
}
