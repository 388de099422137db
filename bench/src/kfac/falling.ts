/** A schedule that falls linearly to zero over a run. */
export const falling = (from: number): string => `${from} * (1 - t)`;
