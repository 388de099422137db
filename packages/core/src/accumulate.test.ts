import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { attach } from './attach.js';
import type { Dataset } from './data.js';
import type { GradientLink } from './link.js';
import { meanSquaredError } from './loss.js';
import { sampledSlices, type Rule } from './rule.js';
import { stepper } from './stepper.js';
import { methodOf } from './testing/descriptions.js';
import { describeEngines, expectNoLeak, relativeError } from './testing/engines.js';
import { meanGradient, runRanks } from './testing/ranks.js';
import { firstBatch, toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import type { TrainOptions, TrainReport } from './run.js';
import { train } from './train.js';

const data = toyImages(36);

/** Trains on batches of 10, 10, 10 and 6. */
async function run(options: Partial<TrainOptions>, model: tf.LayersModel = toyModel(2)) {
  const base = { epochs: 2, batchSize: 10, seed: 3, progress: false as const };
  const report = await train(model, data, { ...base, optimizer: toySgd(0.05), ...options });
  const weights = weightsOf(model);
  model.dispose();
  return { report, weights };
}

/** Steps on one batch of `examples`. */
async function steps(examples: number, options: object, model: tf.LayersModel = toyModel(2)) {
  const { step, dispose } = stepper(model, { optimizer: toySgd(0.05), ...options });
  const losses: number[] = [];
  const batch = firstBatch(data, examples);
  for (let i = 0; i < 3; i++) losses.push((await step(batch)).loss);
  dispose();
  const weights = weightsOf(model);
  model.dispose();
  tf.dispose([batch.xs, batch.ys]);
  return { losses, weights };
}

const lossesOf = ({ epochs }: TrainReport): number[] => epochs.map(({ loss }) => loss);
const penalised = (): tf.Sequential =>
  tf.sequential({
    layers: [
      tf.layers.flatten({ inputShape: [8, 8, 1] }),
      tf.layers.dense({
        units: 3,
        kernelInitializer: tf.initializers.glorotUniform({ seed: 3 }),
        kernelRegularizer: tf.regularizers.l2({ l2: 0.1 }),
      }),
    ],
  });

await describeEngines('a batch in parts', () => {
  it.each([2, 3, 10])('makes the step of the whole, in train, in %i parts', async (accumulate) => {
    const [whole, parts] = [await run({}), await run({ accumulate })];
    // 10 = 3 + 3 + 4 and 6 = 2 + 2 + 2: another order of summation in float32.
    expect(relativeError(parts.weights, whole.weights)).toBeLessThan(1e-5);
    expect(relativeError(lossesOf(parts.report), lossesOf(whole.report))).toBeLessThan(1e-5);
    expect(parts.report.epochs.map(({ accuracy }) => accuracy)).toEqual(whole.report.epochs.map((e) => e.accuracy));
    expect(parts.report.steps).toBe(whole.report.steps);
    expect(parts.report.sites).toEqual(whole.report.sites);
  });

  it.each([
    [10, 3],
    [7, 2],
    // More parts than examples: one for each.
    [2, 3],
    [1, 3],
  ])('makes the step of the whole, in a stepper, of %i examples in %i parts', async (examples, accumulate) => {
    const [whole, parts] = [await steps(examples, {}), await steps(examples, { accumulate })];
    expect(relativeError(parts.weights, whole.weights)).toBeLessThan(1e-5);
    expect(relativeError(parts.losses, whole.losses)).toBeLessThan(1e-5);
  });

  it('has penalties of regularisers once, and any loss', async () => {
    for (const loss of [undefined, meanSquaredError]) {
      const more = loss ? { loss } : {};
      const whole = await steps(10, more, penalised());
      const parts = await steps(10, { ...more, accumulate: 3 }, penalised());
      expect(relativeError(parts.weights, whole.weights)).toBeLessThan(1e-5);
      expect(relativeError(parts.losses, whole.losses)).toBeLessThan(1e-5);
    }
  });

  it('is one part by default, to the bit', async () => {
    const model = (): tf.LayersModel => toyModel(2, { batchNorm: true, dropout: 0.3 });
    expect((await run({ accumulate: 1 }, model())).weights).toEqual((await run({}, model())).weights);
    expect(await steps(10, { accumulate: 1 }, model())).toEqual(await steps(10, {}, model()));
  });

  it('control: with a statistic of the batch it is another step', async () => {
    const model = (): tf.LayersModel => toyModel(2, { batchNorm: true });
    const [whole, parts] = [await run({}, model()), await run({ accumulate: 3 }, model())];
    expect(relativeError(parts.weights, whole.weights)).toBeGreaterThan(1e-4);
  });

  it('under fit: two batches of 8 make the step of one of 16', async () => {
    const fit = async (batchSize: number, accumulate?: number): Promise<{ weights: number[]; steps: number }> => {
      const model = toyModel(4);
      const attachment = attach(model);
      const optimizer = attachment.optimizer(toySgd(0.05), accumulate === undefined ? {} : { accumulate });
      model.compile({ optimizer, loss: 'categoricalCrossentropy' });
      const { xs, ys } = firstBatch(data, 32);
      await model.fit(xs, ys, { epochs: 3, batchSize, shuffle: false, verbose: 0 });
      const result = { weights: weightsOf(model), steps: optimizer.iterations };
      optimizer.dispose();
      attachment.detach();
      tf.dispose([xs, ys]);
      model.dispose();
      return result;
    };
    const [whole, parts] = [await fit(16), await fit(8, 2)];
    expect([whole.steps, parts.steps]).toEqual([6, 6]);
    expect(relativeError(parts.weights, whole.weights)).toBeLessThan(1e-5);
    expect((await fit(8, 1)).weights).toEqual((await fit(8)).weights);
    // The control: as many batches of 8 are other steps.
    expect(relativeError((await fit(8)).weights, whole.weights)).toBeGreaterThan(1e-3);
    // A rest waits: 4 batches in parts of 3 are one step in the first epoch.
    expect((await fit(8, 3)).steps).toBe(4);
  });

  it('leaves no tensor behind', async () => {
    const model = toyModel(2, { batchNorm: true, dropout: 0.2 });
    const options = { epochs: 1, batchSize: 10, accumulate: 3, optimizer: toySgd(), progress: false as const };
    await train(model, data, options);
    await expectNoLeak(() => train(model, data, options));
    const { xs, ys } = firstBatch(data, 12);
    await expectNoLeak(async () => {
      const { step, dispose } = stepper(model, { optimizer: toySgd(), accumulate: 3 });
      await step({ xs, ys });
      const before = tf.memory().numTensors;
      for (let i = 0; i < 3; i++) await step({ xs, ys });
      expect(tf.memory().numTensors).toBe(before);
      dispose();
    });
    const attachment = attach(model);
    const optimizer = attachment.optimizer(toySgd(), { accumulate: 2 });
    model.compile({ optimizer, loss: 'categoricalCrossentropy' });
    const fit = () => model.fit(xs, ys, { epochs: 1, batchSize: 3, shuffle: false, verbose: 0 });
    await fit();
    await expectNoLeak(fit);
    optimizer.dispose();
    attachment.detach();
    tf.dispose([xs, ys]);
  });
});

describe('a part of a step', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('draws what no other part draws, in the order of the parts, the same in every run', async () => {
    const run = async (accumulate: number): Promise<string[]> => {
      const drawn: string[] = [];
      const rule: Rule = {
        name: 'drawing',
        bias: 'unbiased',
        accepts: ({ index }) => index === 0,
        weightGrad(call, x, dy, shape) {
          const { scope, key } = call;
          drawn.push(`${scope.clock.step} ${scope.part} ${key} ${scope.random('drawing', key).next()}`);
          return call.exact.weightGrad(x, dy, shape);
        },
      };
      await steps(10, { accumulate, methods: [methodOf({ rule })], seed: 5 });
      return drawn;
    };
    const parts = await run(3);
    expect(parts.map((text) => text.split(' ').slice(0, 3).join(' '))).toEqual(
      [0, 1, 2].flatMap((step) => [0, 1, 2].map((part) => `${step} ${part} 0/0`)),
    );
    expect(new Set(parts.map((text) => text.split(' ')[3])).size).toBe(9);
    expect(await run(3)).toEqual(parts);
    // The first part draws what the whole batch would.
    expect(await run(1)).toEqual(parts.filter((text) => text.split(' ')[1] === '0'));
  });

  it('has dropout of its own', async () => {
    const model = (): tf.LayersModel => toyModel(2, { dropout: 0.5 });
    // Ten equal examples: with one mask for all parts, parts of 5 would have equal gradients.
    const [xs, ys] = [tf.ones([10, 8, 8, 1]), tf.tile(tf.tensor2d([[1, 0, 0]]), [10, 1])];
    const masks: string[] = [];
    const observer = {
      name: 'masks',
      onBackward: ({ site }: { site: { name: string } }, x: tf.Tensor) => {
        if (site.name === 'conv2') masks.push([...x.dataSync()].map((v) => (v === 0 ? 0 : 1)).join(''));
      },
    };
    const { step, dispose } = stepper(model(), {
      optimizer: toySgd(),
      accumulate: 2,
      methods: [methodOf({ observer })],
    });
    await step({ xs, ys });
    dispose();
    tf.dispose([xs, ys]);
    expect(masks).toHaveLength(2);
    expect(masks[0]).not.toBe(masks[1]);
  });

  it('is cut from the share of a rank: two ranks in parts make the steps of one', async () => {
    const whole = await run({});
    const ranks = await runRanks(2, (communicator) =>
      run({ communicator, accumulate: 2, optimizer: [meanGradient(), toySgd(0.05)] }),
    );
    expect(ranks[0]!.weights).toEqual(ranks[1]!.weights);
    expect(relativeError(ranks[0]!.weights, whole.weights)).toBeLessThan(1e-5);
    const told = runRanks(2, (communicator) =>
      run({ communicator, accumulate: communicator.rank + 1, optimizer: [meanGradient(), toySgd(0.05)] }),
    );
    await expect(told).rejects.toThrow('the same accumulate on all ranks but rank 0 has 1 and rank 1 has 2');
  });

  it('leaves plans that are true of the whole gradient: dW is zero outside of the slices they name', async () => {
    // A link that sends only these slices to other ranks would lose what the parts before have.
    const rule: Rule<{ sampled: { axis: number; indices: Int32Array } }> = {
      name: 'one',
      bias: 'biased',
      accepts: ({ name }) => name === 'hidden',
      plan: ({ scope, key }) => ({ sampled: { axis: 0, indices: Int32Array.of(scope.random('one', key).below(48)) } }),
      weightGrad({ exact, plan }, x, dy, shape) {
        const at = plan!.sampled.indices[0]!;
        const row = tf.oneHot(tf.tensor1d([at], 'int32'), shape[0]!).reshape([shape[0]!, 1]);
        return tf.mul(exact.weightGrad(x, dy, shape), row);
      },
    };
    const outside: number[] = [];
    const looking: GradientLink = {
      kind: 'gradient',
      name: 'looking',
      open: ({ sites }) => ({
        transform(gradients, scope) {
          const [site] = sites.filter(({ name }) => name === 'hidden');
          const slices = sampledSlices(scope.plans.get(site!));
          const norms = tf.sum(tf.abs(gradients.get('hidden/kernel')!), 1).dataSync();
          const named = new Set(slices ? [...(slices.indices as Int32Array)] : norms.keys());
          outside.push(norms.filter((norm, i) => norm > 0 && !named.has(i)).length);
          return new Map(gradients);
        },
      }),
    };
    const options = { methods: [methodOf({ rule: rule as Rule })], optimizer: [looking, toySgd()], seed: 1 };
    await steps(10, options);
    expect(outside).toEqual([0, 0, 0]);
    await steps(10, { ...options, accumulate: 3 });
    expect(outside).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it('is refused where it is no whole number from 1', async () => {
    for (const accumulate of [0, -1, 1.5, '2', Number.NaN]) {
      const wrong = { accumulate: accumulate as never };
      await expect(run(wrong)).rejects.toThrow(/^train: expected accumulate/);
      expect(() => stepper(toyModel(), { optimizer: toySgd(), ...wrong })).toThrow(/^stepper: expected accumulate/);
      const attachment = attach(toyModel());
      expect(() => attachment.optimizer(toySgd(), wrong)).toThrow(/^optimizer: expected accumulate/);
      attachment.detach();
    }
  });
});

describe('a data set in parts', () => {
  it('of vectors reports no accuracy', async () => {
    await tf.setBackend('cpu');
    const line: Dataset = {
      name: 'line',
      origin: 'made',
      length: 10,
      shape: [1],
      inputs: Float32Array.from({ length: 10 }, (_, i) => i / 5 - 1),
      targets: Float32Array.from({ length: 10 }, (_, i) => i / 5),
    };
    const model = (): tf.LayersModel =>
      tf.sequential({
        layers: [tf.layers.dense({ units: 1, inputShape: [1], kernelInitializer: 'ones' })],
      });
    const options = { epochs: 2, batchSize: 5, optimizer: toySgd(), progress: false as const };
    const [whole, parts] = [
      await train(model(), line, options),
      await train(model(), line, { ...options, accumulate: 2 }),
    ];
    expect(parts.epochs[1]).not.toHaveProperty('accuracy');
    expect(relativeError(lossesOf(parts), lossesOf(whole))).toBeLessThan(1e-5);
  });
});
