import { batches, type Dataset, evaluate, slice, stepper } from '@frugal/core';
import { lenet } from '@frugal/models';
import type * as tf from '@tensorflow/tfjs';
import type { Contender } from './contenders.js';

/** What a run costs on this machine. */
export interface Costs {
  /** Seconds of one training step, method after method. */
  readonly step: readonly number[];
  /** Seconds to evaluate one test example. */
  readonly test: number;
}

/** How much data a run uses. */
export interface Amount {
  /** Training examples. */
  readonly examples: number;
  /** Test examples. */
  readonly tests: number;
}

/** Seconds that one epoch of all methods may take, with evaluation: 3 epochs stay below 3 minutes. */
export const ROUND_SECONDS = 50;
/** The part of it that evaluation may take. */
const TEST_SHARE = 0.2;
const FEWEST_STEPS = 10;
const FEWEST_TESTS = 500;

/** Seconds of one epoch of all methods, with evaluation. */
export function roundSeconds({ step, test }: Costs, { examples, tests }: Amount, batch: number): number {
  const steps = Math.ceil(examples / batch);
  return step.reduce((sum, seconds) => sum + steps * seconds + tests * test, 0);
}

/** As much of the data as the time allows: fewer tests first, then fewer whole batches, but never next to nothing. */
export function affordable(costs: Costs, wanted: Amount, batch: number, seconds = ROUND_SECONDS): Amount {
  if (roundSeconds(costs, wanted, batch) <= seconds) return wanted;
  const methods = costs.step.length;
  const payable = Math.floor((TEST_SHARE * seconds) / (methods * costs.test) / 100) * 100;
  const tests = Math.min(wanted.tests, Math.max(FEWEST_TESTS, payable));
  const left = seconds - methods * tests * costs.test;
  const steps = Math.floor(left / costs.step.reduce((a, b) => a + b, 0));
  return { tests, examples: Math.min(wanted.examples, Math.max(FEWEST_STEPS, steps) * batch) };
}

const elapsed = (since: number): number => (performance.now() - since) / 1000;

/** Time of a step; a slow engine is not asked for long. */
async function stepSeconds(model: tf.LayersModel, contender: Contender, data: Dataset, batch: number): Promise<number> {
  const run = stepper(model, { methods: contender.methods(), optimizer: contender.optimizer(), totalSteps: 1000 });
  const times: number[] = [];
  try {
    for (const next of batches(slice(data, 0, 8 * batch), { batchSize: batch })) {
      const started = performance.now();
      await run.step(next);
      times.push(elapsed(started));
      if (times.reduce((a, b) => a + b, 0) > 1.5) break;
    }
  } finally {
    run.dispose();
  }
  // The fastest, so that a moment of other work does not change how much data is used.
  return Math.min(...times);
}

/** Times a few steps of each method and a little evaluation; this also warms the engine up, the same for all. */
export async function measureCosts(
  contenders: readonly Contender[],
  data: Dataset,
  test: Dataset,
  batch: number,
): Promise<Costs> {
  const step: number[] = [];
  const model = lenet({ seed: 1 });
  for (const contender of contenders) step.push(await stepSeconds(model, contender, data, batch));
  let perTest = 0;
  // The first pass warms up.
  for (const count of step.every((seconds) => seconds < 1) ? [256, 512] : [64]) {
    const part = slice(test, 0, count);
    const started = performance.now();
    evaluate(model, part);
    perTest = elapsed(started) / part.length;
  }
  model.dispose();
  return { step, test: perTest };
}
