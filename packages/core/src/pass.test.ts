import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { attach } from './attach.js';
import { linksOf } from './chain.js';
import { meanSquaredError } from './loss.js';
import type { Method } from './method.js';
import type { Passes, Probe } from './probe.js';
import type { Call } from './rule.js';
import type { Scope } from './scope.js';
import { stepper } from './stepper.js';
import { describeEngines, expectNoLeak, relativeError } from './testing/engines.js';
import { toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import { batches } from './data.js';

/** Steps on the toy data; the loss of each. */
async function run(methods: readonly Method[], rate = 0.1, model = toyModel(2, { batchNorm: true, dropout: 0.5 })) {
  const { step, dispose } = stepper(model, { methods, optimizer: toySgd(rate), seed: 3 });
  const losses: number[] = [];
  for (const batch of batches(toyImages(36), { batchSize: 12 })) losses.push((await step(batch)).loss);
  dispose();
  return { losses, weights: weightsOf(model) };
}

const method = (probe: Probe, more: Partial<Method> = {}): Method => ({
  name: 'm',
  source: '',
  probes: [probe],
  ...more,
});

await describeEngines('probes', () => {
  test('see the loss of the step before it, and that of the new weights after it', async () => {
    const [before, after]: [number[], number[]] = [[], []];
    const look: Probe = {
      name: 'look',
      before: (passes) => void before.push(passes.evaluate()),
      after: (passes) => void after.push(passes.evaluate()),
    };
    const plain = await run([]);
    const probed = await run([method(look)]);
    // The step itself has the same bits: masks, moving averages and all.
    expect(probed).toEqual(plain);
    // Evaluation draws the same masks.
    expect(before.map((loss) => loss.toFixed(5))).toEqual(plain.losses.map((loss) => loss.toFixed(5)));
    expect(after[0]).toBeLessThan(before[0]!);
  });

  test('with backward passes, leave no trace and no tensor; observers see them', async () => {
    const calls: string[] = [];
    const observer = { name: 'o', onBackward: ({ site }: Call) => void calls.push(site.name) };
    const back: Probe = {
      name: 'back',
      before: (passes) => passes.backward((outputs) => tf.oneHot(tf.argMax(outputs, -1), 3).toFloat()),
    };
    const plain = await run([]);
    expect(await run([method(back, { observer })])).toEqual(plain);
    expect(calls).toHaveLength(2 * 3 * 4);
    const model = toyModel(2, { batchNorm: true });
    await expectNoLeak(() => run([method(back, { observer })], 0.1, model));
  });

  test('go back from targets as from constants', async () => {
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 2, inputShape: [3] })] });
    let seen: number[] = [];
    const look = (_call: Call, _x: tf.Tensor, dy: tf.Tensor): void => void (seen = [...seen, ...dy.dataSync()]);
    const probe: Probe = { name: 'p', before: (passes) => passes.backward((outputs) => tf.add(outputs, 1)) };
    const { step, dispose } = stepper(model, {
      methods: [method(probe, { observer: { name: 'o', onBackward: look } })],
      optimizer: toySgd(0),
      loss: meanSquaredError,
    });
    const [xs, ys] = [tf.ones([2, 3]), tf.zeros([2, 2])];
    await step({ xs, ys });
    dispose();
    // The mean over 4 numbers of squares of −1.
    expect(relativeError(seen.slice(0, 4), [-0.5, -0.5, -0.5, -0.5])).toBeLessThan(1e-6);
    expect(seen).toHaveLength(8);
  });
});

test('come in the order of methods, before and after, with the scope of the step', async () => {
  await tf.setBackend('cpu');
  const seen: string[] = [];
  const named = (name: string): Method =>
    method({
      name,
      before: (_passes: Passes, scope: Scope) => void seen.push(`${name}< ${scope.clock.step}`),
      after: (_passes: Passes, scope: Scope) => void seen.push(`${name}> ${scope.clock.step}`),
    });
  await run([named('a'), named('b')]);
  expect(seen.slice(0, 4)).toEqual(['a< 0', 'b< 0', 'a> 0', 'b> 0']);
  expect(seen).toHaveLength(12);
});

test('are refused by fit', () => {
  const attached = attach(toyModel(), method({ name: 'look' }));
  expect(() => attached.optimizer(toySgd())).toThrow(
    /^look makes further passes .* model.fit cannot host. Use train\(/,
  );
  attached.detach();
});

test('a link that is listed stands where it is listed, otherwise first', () => {
  const [own, other, last] = [toySgd(), toySgd(), toySgd()];
  const bringing: Method = { name: 'm', source: '', transforms: [own] };
  expect(linksOf([bringing], [other, last])).toEqual([own, other, last]);
  expect(linksOf([bringing], [other, own, last])).toHaveLength(3);
  expect(linksOf([bringing], [other, own, last])[1]).toBe(own);
  expect(linksOf([bringing], own)).toEqual([own]);
});

test('a call says how many rows an example has', () => {
  const rows: (number | undefined)[] = [];
  const observer = { name: 'o', onBackward: ({ rowsPerExample }: Call) => void rows.push(rowsPerExample) };
  for (const shape of [[3], [5, 3], [2, 5, 3]]) {
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 2, inputShape: shape })] });
    const attached = attach(model, { name: 'm', source: '', observer });
    tf.tidy(() => {
      tf.variableGrads(() => tf.sum(model.apply(tf.ones([4, ...shape]), { training: true }) as tf.Tensor));
    });
    attached.detach();
  }
  expect(rows).toEqual([undefined, 5, 10]);
});
