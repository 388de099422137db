import { checkInteger, checkNumber, checkOptions, type Clock, type Hyper, hyper, type Schedule } from '@frugal/core';

/** Options of {@link warmup}. */
export interface WarmupOptions {
  /** Number of warm-up steps, ≥ 1: the steps 0 … steps − 1. */
  readonly steps: number;
  /** What follows: a number, a schedule or a formula. It sees the clock of the run, not one that starts at `steps`. */
  readonly then: Hyper;
  /** Value at step 0. Default 0, with which the first step changes nothing; peak / steps avoids that. */
  readonly from?: number;
}

/** The clock of the same run at another step; the length is asked for only when it is read. */
const moved = (clock: Clock, step: number): Clock => ({
  step,
  get total(): number {
    return clock.total;
  },
});

/**
 * Linear warm-up: at step k < steps the value is from + (then(steps) − from) · k / steps. So step 0 has exactly `from`,
 * step `steps` is the first that has `then`, with its value at that very step, and there is no jump between the two.
 *
 * Source: Goyal et al. 2017, arXiv 1706.02677, section 2.2 (gradual warm-up).
 *
 * @throws `CONFIG` for an unknown option or a value outside its range
 * @example
 * ```ts
 * adam({ learningRate: warmup({ steps: 500, then: cosine({ initial: 1e-3 }) }) });
 * ```
 */
export function warmup(options: WarmupOptions): Schedule {
  checkOptions('warmup', options, ['steps', 'then', 'from']);
  const steps = checkInteger('warmup', 'steps', options.steps, { min: 1 });
  const from = checkNumber('warmup', 'from', options.from ?? 0);
  const then = hyper('warmup', 'then', options.then);
  return (clock) => {
    if (clock.step >= steps) return then(clock);
    return from + ((then(moved(clock, steps)) - from) * clock.step) / steps;
  };
}
