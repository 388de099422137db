import { autoProgress, type Progress } from '@frugal/core';

/** One training step on a learning curve. */
export interface Point {
  /** Step of the run, from 1. */
  readonly step: number;
  /** Seconds of training up to here. */
  readonly seconds: number;
  /** Loss of this step's batch. */
  readonly loss: number;
}

/** Writes a learning curve down while it hands every event on. */
export interface Recorder {
  /** For `train`. */
  readonly progress: Progress;
  /** What was recorded. */
  readonly points: readonly Point[];
}

/**
 * Records the loss of every step. A progress event holds the mean of its epoch so far; the difference of two such sums is
 * the loss of the step between them.
 */
export function recorder(
  data: { readonly examples: number; readonly batch: number },
  title: string,
  next: Progress = autoProgress(title),
): Recorder {
  const points: Point[] = [];
  let before = { seen: 0, sum: 0 };
  let earlier = 0;
  return {
    points,
    progress(event) {
      next(event);
      if (event.kind === 'epoch') {
        earlier += event.seconds;
        before = { seen: 0, sum: 0 };
        return;
      }
      const seen = Math.min(event.batch * data.batch, data.examples);
      const sum = event.loss * seen;
      const loss = (sum - before.sum) / (seen - before.seen);
      points.push({ step: points.length + 1, seconds: earlier + event.seconds, loss });
      before = { seen, sum };
    },
  };
}

/** An exponential moving average over about `window` steps, without the pull of its start. */
export function smooth(points: readonly Point[], window: number): Point[] {
  const keep = 1 - 1 / Math.max(1, window);
  let sum = 0;
  let weight = 0;
  return points.map((point) => {
    sum = keep * sum + point.loss;
    weight = keep * weight + 1;
    return { ...point, loss: sum / weight };
  });
}

/** At most about `count` points, evenly spaced, with the last. */
export function thin(points: readonly Point[], count: number): Point[] {
  const stride = Math.max(1, Math.ceil(points.length / count));
  return points.filter((_, i) => (points.length - 1 - i) % stride === 0);
}
