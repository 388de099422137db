import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { attach } from './attach.js';
import { type Rule, sampledSlices, type SampledSlices } from './rule.js';
import { clockAt } from './schedule.js';
import { methodOf } from './testing/descriptions.js';

/** What links are told of dW after these calls of one layer, each with its slices. */
function toldOf(calls: readonly (SampledSlices | undefined)[]): SampledSlices | undefined {
  let next = 0;
  const rule: Rule = { name: 'saying', bias: 'biased', plan: () => ({ own: next, sampled: calls[next++] }) };
  const input = tf.input({ shape: [3] });
  const layer = tf.layers.dense({ units: 3 });
  let output: tf.SymbolicTensor = input;
  for (let i = 0; i < calls.length; i++) output = layer.apply(output) as tf.SymbolicTensor;
  const model = tf.model({ inputs: input, outputs: output });
  const attached = attach(model, methodOf({ rule }));
  const scope = attached.begin(clockAt(0));
  tf.tidy(() => void model.apply(tf.ones([2, 3]), { training: true }));
  const told = sampledSlices(scope.plans.get(attached.sites[0]!));
  attached.detach();
  return told;
}

const rows = (...indices: number[]): SampledSlices => ({ axis: 0, indices: Int32Array.from(indices) });

describe('the slices of dW that a step tells links of', () => {
  it('are those of the plan', () => {
    expect(toldOf([rows(2, 5)])).toEqual(rows(2, 5));
    expect(toldOf([undefined])).toBeUndefined();
  });

  it('are those of all calls of a layer that is used again', () => {
    expect(toldOf([rows(2, 5), rows(0, 5)])).toEqual(rows(0, 2, 5));
    expect(toldOf([rows(11), rows(2), rows(9)])).toEqual(rows(2, 9, 11));
  });

  it('are none, so that dW counts as dense, where one call has a dense one or the host knows no indices', () => {
    expect(toldOf([rows(2), undefined])).toBeUndefined();
    expect(toldOf([undefined, rows(2)])).toBeUndefined();
    expect(toldOf([rows(2), undefined, rows(1)])).toBeUndefined();
    const tensor = tf.tensor1d([2], 'int32');
    expect(toldOf([rows(2), { axis: 0, indices: tensor }])).toBeUndefined();
    expect(toldOf([{ axis: 0, indices: tensor }])?.indices).toBe(tensor);
    tensor.dispose();
  });
});
