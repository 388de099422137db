import {
  type Batch,
  batchCount,
  batches,
  type Dataset,
  evaluate,
  type Link,
  type Method,
  stepper,
  type Stepper,
} from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';
import { augmented } from './augment.js';

/** One way to train a network, for so many epochs. */
export interface Runner {
  readonly key: string;
  readonly title: string;
  readonly epochs: number;
  /** Links and methods. */
  make(): { readonly optimizer: Link; readonly methods: Method[] };
  /** Asks the run at its end. */
  ended?(run: Stepper): void;
}

/** Where a run is at the end of an epoch. */
export interface Mark {
  readonly epoch: number;
  /** Seconds of training steps so far; evaluation and augmentation are not in it. */
  readonly seconds: number;
  /** Mean loss of the epoch's batches. */
  readonly loss: number;
  /** Accuracy on the test set. */
  readonly accuracy: number;
}

/** What a race is about. */
export interface Course {
  readonly model: (seed: number) => tf.LayersModel;
  readonly train: Dataset;
  readonly test: Dataset;
  readonly batchSize: number;
  readonly seed: number;
}

/** Every batch of all epochs of a run, augmented; `null` where an epoch ends. */
function* feed({ train, batchSize, seed }: Course, epochs: number): Generator<Batch | null> {
  for (let epoch = 0; epoch < epochs; epoch++) {
    const data = augmented(train, seed, epoch);
    yield* batches(data, { batchSize, shuffle: { seed, epoch }, dropLast: true });
    yield null;
  }
}

/** A run that goes on by a few steps at a time. */
function start(course: Course, { epochs, make, ended }: Runner) {
  const model = course.model(course.seed);
  const { optimizer, methods } = make();
  const perEpoch = batchCount(course.train, { batchSize: course.batchSize, dropLast: true });
  const run = stepper(model, { optimizer, methods, totalSteps: epochs * perEpoch, seed: course.seed });
  const batchesOfRun = feed(course, epochs);
  const marks: Mark[] = [];
  let [seconds, loss] = [0, 0];
  const end = (): void => {
    const { accuracy = 0 } = evaluate(model, course.test);
    marks.push({ epoch: marks.length + 1, seconds, loss: loss / perEpoch, accuracy });
    loss = 0;
  };
  return {
    marks,
    /** Makes so many steps, or fewer at the end; false when there are no more. */
    async advance(steps: number): Promise<boolean> {
      for (let made = 0; made < steps; made++) {
        const next = batchesOfRun.next();
        if (next.done === true) return false;
        if (next.value === null) end();
        else {
          const started = performance.now();
          loss += (await run.step(next.value)).loss;
          seconds += (performance.now() - started) / 1000;
        }
      }
      return true;
    },
    dispose(): void {
      ended?.(run);
      run.dispose();
      model.dispose();
    },
  };
}

const BLOCK = 20;

/** Runs all in turns of a few steps, so that whatever slows the machine slows them alike. */
export async function race(
  course: Course,
  runners: readonly Runner[],
  progress: (runner: Runner, mark: Mark) => void = () => undefined,
): Promise<Map<string, readonly Mark[]>> {
  const runs = runners.map((runner) => ({ runner, run: start(course, runner), told: 0 }));
  let left = runs;
  try {
    while (left.length > 0) {
      const going = [];
      for (const entry of left) {
        if (await entry.run.advance(BLOCK)) going.push(entry);
        for (; entry.told < entry.run.marks.length; entry.told++)
          progress(entry.runner, entry.run.marks[entry.told] as Mark);
      }
      left = going;
    }
  } finally {
    for (const { run } of runs) run.dispose();
  }
  return new Map(runs.map(({ runner, run }) => [runner.key, run.marks]));
}

/** Seconds until an accuracy was reached for the first time, at the end of an epoch; undefined if never. */
export function secondsTo(marks: readonly Mark[], accuracy: number): number | undefined {
  return marks.find((mark) => mark.accuracy >= accuracy)?.seconds;
}
