import type { Clock } from '@frugal/core';

/** `part / whole` held in [0, 1]; 1 where `whole` is not positive. */
export function fraction(part: number, whole: number): number {
  return whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 1;
}

/**
 * How much of the run is over: t = step / total, held in [0, 1]. The first step has t = 0, the last one
 * (total − 1) / total; t = 1 is where step `total` would be.
 */
export function progress(clock: Clock): number {
  return fraction(clock.step, clock.total);
}
