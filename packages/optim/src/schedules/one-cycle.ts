import { checkNumber, checkOptions, type Clock, type Schedule } from '@frugal/core';
import { fraction } from './progress.js';

/** Options of {@link oneCycle}. */
export interface OneCycleOptions {
  /** Highest value, reached at the end of the warm-up. */
  readonly peak: number;
  /** The cycle starts at peak / divide. Default 25 (PyTorch's `div_factor`). */
  readonly divide?: number;
  /** The cycle ends at peak / divide / finalDivide. Default 1e4 (PyTorch's `final_div_factor`). */
  readonly finalDivide?: number;
  /** Fraction of the run that rises, in [0, 1]. Default 0.3 (PyTorch's `pct_start`). */
  readonly warmup?: number;
}

/** Options of {@link oneCycleMomentum}. */
export interface OneCycleMomentumOptions {
  /** Momentum at both ends. Default 0.95 (PyTorch's `max_momentum`). */
  readonly high?: number;
  /** Momentum where the rate peaks. Default 0.85 (PyTorch's `base_momentum`). */
  readonly low?: number;
  /** Fraction of the run in which it falls; the same as that of {@link oneCycle}. Default 0.3. */
  readonly warmup?: number;
}

/** From `from` to `to` along half a cosine, p in [0, 1]. */
const anneal = (from: number, to: number, p: number): number => to + ((from - to) * (1 + Math.cos(Math.PI * p))) / 2;

/** start → middle until step warmup·total − 1, middle → end until step total − 1: the steps of PyTorch's OneCycleLR. */
function twoPhases(clock: Clock, warmup: number, start: number, middle: number, end: number): number {
  const turn = warmup * clock.total - 1;
  const last = clock.total - 1;
  if (clock.step < turn) return anneal(start, middle, fraction(clock.step, turn));
  return anneal(middle, end, clock.step <= turn ? 0 : fraction(clock.step - turn, last - turn));
}

/**
 * The 1cycle policy: up from peak / divide to `peak`, then down to peak / divide / finalDivide, both along half a
 * cosine. As in PyTorch's OneCycleLR, the peak is at step warmup · total − 1 and the last step of the run (total − 1)
 * has the final value; steps past the end keep it.
 *
 * Source: Smith, Topin 2017, arXiv 1708.07120; defaults and cosine shape are those of PyTorch's OneCycleLR.
 * Use it with {@link oneCycleMomentum}, its mirror image.
 *
 * @throws `CONFIG` for an unknown option or a value outside its range; when read, if the run has no known length
 * @example
 * ```ts
 * sgd({ learningRate: oneCycle({ peak: 0.1 }), momentum: oneCycleMomentum() });
 * ```
 */
export function oneCycle(options: OneCycleOptions): Schedule {
  checkOptions('oneCycle', options, ['peak', 'divide', 'finalDivide', 'warmup']);
  const peak = checkNumber('oneCycle', 'peak', options.peak);
  const divide = checkNumber('oneCycle', 'divide', options.divide ?? 25, { min: 0, aboveMin: true });
  const finalDivide = checkNumber('oneCycle', 'finalDivide', options.finalDivide ?? 1e4, { min: 0, aboveMin: true });
  const warmup = checkNumber('oneCycle', 'warmup', options.warmup ?? 0.3, { min: 0, max: 1 });
  const start = peak / divide;
  return (clock) => twoPhases(clock, warmup, start, peak, start / finalDivide);
}

/**
 * The momentum of the 1cycle policy: down from `high` to `low` while the rate rises, then up to `high` again, along half
 * cosines, at the same steps as {@link oneCycle}.
 *
 * Source: Smith, Topin 2017, arXiv 1708.07120; defaults are those of PyTorch's OneCycleLR.
 *
 * @throws `CONFIG` for an unknown option or a value outside its range; when read, if the run has no known length
 * @example
 * ```ts
 * sgd({ learningRate: oneCycle({ peak: 0.1 }), momentum: oneCycleMomentum({ high: 0.9, low: 0.8 }) });
 * ```
 */
export function oneCycleMomentum(options: OneCycleMomentumOptions = {}): Schedule {
  checkOptions('oneCycleMomentum', options, ['high', 'low', 'warmup']);
  const unit = { min: 0, max: 1, belowMax: true };
  const high = checkNumber('oneCycleMomentum', 'high', options.high ?? 0.95, unit);
  const low = checkNumber('oneCycleMomentum', 'low', options.low ?? 0.85, unit);
  const warmup = checkNumber('oneCycleMomentum', 'warmup', options.warmup ?? 0.3, { min: 0, max: 1 });
  return (clock) => twoPhases(clock, warmup, high, low, high);
}
