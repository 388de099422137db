import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { attach } from './attach.js';
import { stepper } from './stepper.js';
import { meanSquaredError } from './loss.js';
import type { Rule } from './rule.js';
import { methodOf } from './testing/descriptions.js';
import { toySgd } from './testing/toy.js';

const constant = (value: number) => ({ kernelInitializer: tf.initializers.constant({ value }), useBias: false });

/** A dense layer of a path, on a tensor. */
const layer = (name: string, value: number, from: tf.SymbolicTensor): tf.SymbolicTensor =>
  tf.layers.dense({ units: 2, name, ...constant(value) }).apply(from) as tf.SymbolicTensor;

/** A nested model 'g' with a layer 'h'. */
function nested(value: number): tf.LayersModel {
  const input = tf.input({ shape: [2] });
  return tf.model({ name: 'g', inputs: input, outputs: layer('h', value, input) });
}

/** Two layers of the path g/h, one after the other: x·(1)·(10). */
function samePath(): tf.LayersModel {
  const input = tf.input({ shape: [2] });
  const inner = nested(1).apply(input) as tf.SymbolicTensor;
  return tf.model({ inputs: input, outputs: layer('g/h', 10, inner) });
}

const trained = (model: tf.LayersModel): number[] =>
  tf.tidy(() => [...(model.apply(tf.ones([1, 2]), { training: true }) as tf.Tensor).dataSync()]);

describe('layers of one path', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('are two sites with names of their own, each with its own kernel', () => {
    const model = samePath();
    const before = trained(model);
    // Two inputs of 1, a kernel of ones, then of tens.
    expect(before).toEqual([40, 40]);
    const attachment = attach(model);
    expect(trained(model)).toEqual(before);
    expect(attachment.sites.map(({ name }) => name)).toEqual(['g/h', 'g/h#2']);
    expect(attachment.sites.map(({ kernel }) => kernel.dataSync()[0])).toEqual([1, 10]);
    expect(attachment.sites.map(({ role }) => role)).toEqual(['hidden', 'output']);
    expect(attachment.report().map(({ site, done }) => [site, done])).toEqual([
      ['g/h', 4],
      ['g/h#2', 4],
    ]);
    expect(attachment.uncovered).toEqual([]);
    attachment.detach();
    expect(trained(model)).toEqual(before);
  });

  it('may be three: the names count on', () => {
    const input = tf.input({ shape: [2] });
    const wrap = (name: string, value: number, inner: string): tf.LayersModel => {
      const inside = tf.input({ shape: [2] });
      return tf.model({ name, inputs: inside, outputs: layer(inner, value, inside) });
    };
    // a with b/c, a/b with c, and a/b/c.
    const first = wrap('a', 1, 'b/c').apply(input) as tf.SymbolicTensor;
    const second = wrap('a/b', 2, 'c').apply(first) as tf.SymbolicTensor;
    const model = tf.model({ inputs: input, outputs: layer('a/b/c', 3, second) });
    const attachment = attach(model);
    expect(attachment.sites.map(({ name, kernel }) => [name, kernel.dataSync()[0]])).toEqual([
      ['a/b/c', 1],
      ['a/b/c#2', 2],
      ['a/b/c#3', 3],
    ]);
    // 2·1, ·2·2, ·2·3
    expect(trained(model)).toEqual([48, 48]);
    attachment.detach();
  });

  it('have rules, plans and gradients of their own', async () => {
    const model = samePath();
    const seen: [name: string, kernel: number, plan: unknown][] = [];
    const rule: Rule = {
      name: 'by name',
      bias: 'biased',
      accepts: ({ name }) => name === 'g/h#2',
      plan: ({ site }) => site.name,
      forward(call, x, w) {
        seen.push([call.site.name, w.dataSync()[0]!, call.plan]);
        return tf.mul(call.exact.forward(x, w), 0.5);
      },
    };
    const { step, attachment, dispose } = stepper(model, {
      methods: [methodOf({ rule })],
      optimizer: toySgd(0.001, 0),
      loss: meanSquaredError,
    });
    const [first, second] = attachment.sites;
    expect(attachment.params.map(({ site }) => site)).toEqual([first, second]);
    const [xs, ys] = [tf.ones([1, 2]), tf.fill([1, 2], 19)];
    const { loss } = await step({ xs, ys });
    // 2·(1)·2·(10)·½ = 20, one from the target: both weights fall, by gradients of another size.
    expect(loss).toBeCloseTo(1, 5);
    expect([...attachment.scope.plans]).toEqual([[second, 'g/h#2']]);
    expect(seen).toEqual([['g/h#2', 10, 'g/h#2']]);
    dispose();
    const [a, b] = model.getWeights().map((w) => w.dataSync()[0]!);
    // dY = 1 in each output; dW of the second is its x, 2; of the first Σ over two outputs of 10.
    expect(b).toBeCloseTo(10 - 0.001 * 2, 5);
    expect(a).toBeCloseTo(1 - 0.001 * 20, 5);
    tf.dispose([xs, ys]);
  });

  it('give weights of one name to the chain under names of their own', () => {
    const attachment = attach(samePath());
    const names = attachment.params.map(({ name }) => name);
    expect(new Set(names).size).toBe(2);
    attachment.detach();
    const input = tf.input({ shape: [2] });
    const twin = (name: string, from: tf.SymbolicTensor): tf.SymbolicTensor =>
      tf
        .sequential({ name, layers: [tf.layers.dense({ name: 'x', units: 2, inputShape: [2] })] })
        .apply(from) as tf.SymbolicTensor;
    const other = attach(tf.model({ inputs: input, outputs: twin('b', twin('a', input)) }));
    expect(other.params.map(({ name }) => name)).toEqual(['x/kernel', 'x/bias', 'x/kernel#2', 'x/bias#2']);
    expect(other.sites.map(({ name }) => name)).toEqual(['a/x', 'b/x']);
    other.detach();
  });
});
