import { type Method, stepper } from '@frugal/core';
import { weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { bdfa, cdfa, dfa, feedbackAlignment, weightMirror } from './index.js';
import { descent, mlp } from './testing/models.js';

/** A run that is not over: of a network of its own, with a seed of its own. */
function begin(method: Method, widths: readonly number[], seed: number) {
  const model = mlp(widths, 'tanh');
  const run = stepper(model, { methods: [method], optimizer: descent(0.3), seed });
  const xs = tf.randomNormal([4, widths[0] as number], 0, 1, 'float32', seed);
  const ys = tf.oneHot(tf.tensor1d([0, 1, 2, 0], 'int32'), 3).toFloat();
  return {
    step: () => run.step({ xs, ys }),
    end() {
      // feedbackAlignment tells nothing.
      const reports = run.attachment.context.opened.get(method)?.report !== undefined;
      const left = { weights: weightsOf(model), report: reports ? run.of(method) : undefined };
      run.dispose();
      return left;
    },
  };
}

/** Three steps of one run while another one, of other widths and another seed, makes its own. */
async function together(first: Method, second: Method) {
  const runs = [begin(first, [6, 8, 7, 3], 1), begin(second, [5, 9, 8, 3], 2)];
  for (let i = 0; i < 3; i++) for (const run of runs) await run.step();
  return runs.map((run) => run.end());
}

describe('a description', () => {
  it.each<[string, () => Method]>([
    ['dfa', () => dfa({ measureEvery: 1 })],
    ['dfa, shared', () => dfa({ shared: true })],
    ['cdfa, forwardProduct', () => cdfa({ feedback: 'forwardProduct' })],
    ['bdfa', () => bdfa()],
    ['feedbackAlignment', () => feedbackAlignment()],
    ['weightMirror', () => weightMirror({ rate: 0.2, measureEvery: 1 })],
  ])('of %s serves two runs at once, which share nothing', async (_title, make) => {
    const one = make();
    const both = await together(one, one);
    expect(both).toEqual(await together(make(), make()));
    expect(both[0]!.weights).not.toEqual(both[1]!.weights);
    // And a later run begins anew.
    const later = begin(one, [6, 8, 7, 3], 1);
    for (let i = 0; i < 3; i++) await later.step();
    expect(later.end()).toEqual(both[0]);
  });
});
