import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it, test } from 'vitest';
import type { SiteReport } from './attach.js';
import { batches } from './data.js';
import { meanSquaredError } from './loss.js';
import type { Method, OpenedMethod } from './method.js';
import type { Probe, Step } from './pass.js';
import type { Call, Observer, Rule } from './rule.js';
import { stepper } from './stepper.js';
import { methodOf } from './testing/descriptions.js';
import { describeEngines, expectNoLeak, relativeError } from './testing/engines.js';
import { toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import { attach } from './attach.js';

interface Ran {
  readonly losses: number[];
  readonly weights: number[];
  readonly sites: SiteReport[];
}

const noisy = (): tf.LayersModel => toyModel(2, { batchNorm: true, dropout: 0.5 });

/** Steps on the toy data; the loss of each. */
async function run(
  methods: readonly Method[],
  { rate = 0.1, model = noisy(), accumulate = 1 }: { rate?: number; model?: tf.LayersModel; accumulate?: number } = {},
): Promise<Ran> {
  const { step, attachment, dispose } = stepper(model, { methods, optimizer: toySgd(rate), seed: 3, accumulate });
  const losses: number[] = [];
  for (const batch of batches(toyImages(36), { batchSize: 12 })) losses.push((await step(batch)).loss);
  const sites = attachment.report();
  dispose();
  return { losses, weights: weightsOf(model), sites };
}

const method = (probe: Probe, more: Partial<OpenedMethod> = {}): Method => methodOf({ probes: [probe], ...more });

/** A number that is read and freed. */
const take = (scalar: tf.Scalar): number => {
  const value = scalar.dataSync()[0]!;
  scalar.dispose();
  return value;
};
const lossOf = (step: Step, ...options: Parameters<Step['pass']>): number => take(step.pass(...options).loss());

/** Scales dW by a number drawn for the call, and tells the numbers. */
function drawingRule(drawn: string[] = []): Rule {
  return {
    name: 'drawing',
    bias: 'unbiased',
    plan: ({ scope, key }) => scope.random('plan', key).next(),
    forward: ({ exact, plan }, x, w) => tf.mul(exact.forward(x, w), 0.5 + (plan as number)),
    weightGrad(call, x, dy, shape) {
      const factor = 0.5 + call.scope.random('drawing', call.key).next();
      drawn.push(`${call.scope.clock.step} ${call.key} ${call.count ? 'step' : 'look'} ${factor}`);
      call.count?.('weightGrad', 1000);
      return tf.mul(call.exact.weightGrad(x, dy, shape), factor);
    },
  };
}

/** A probe that looks in every way there is. */
function curious(name: string): Probe {
  const look = (step: Step): void => {
    step.pass().outputs().dispose();
    step.pass({ rules: 'off' }).loss().dispose();
    const { loss, gradients } = step.pass({ examples: [3, 9] }).gradients();
    tf.dispose([loss, ...gradients.values()]);
    const targets = (outputs: tf.Tensor): tf.Tensor => tf.oneHot(tf.argMax(outputs, -1), 3).toFloat();
    const second = step.pass({ rules: 'off', targets }).gradients();
    tf.dispose([second.loss, ...second.gradients.values()]);
  };
  return { name, before: look, after: look };
}

await describeEngines('probes', () => {
  test('see the loss of the step before it, and that of the new weights after it', async () => {
    const [before, after]: [number[], number[]] = [[], []];
    const look: Probe = {
      name: 'look',
      before: (step) => void before.push(lossOf(step)),
      after: (step) => void after.push(lossOf(step)),
    };
    const plain = await run([]);
    const probed = await run([method(look)]);
    // The step itself has the same bits: masks, moving averages and all.
    expect(probed).toEqual(plain);
    // The pass draws the same masks.
    expect(before).toEqual(plain.losses);
    expect(after[0]).toBeLessThan(before[0]!);
  });

  test('with backward passes, leave no trace and no tensor; the observers that they give see them', async () => {
    const [own, given]: [string[], string[]] = [[], []];
    const observer = (calls: string[]): Observer => ({
      name: 'o',
      onBackward: ({ site }) => void calls.push(site.name),
    });
    const back: Probe = {
      name: 'back',
      before(step) {
        const targets = (outputs: tf.Tensor): tf.Tensor => tf.oneHot(tf.argMax(outputs, -1), 3).toFloat();
        const { loss, gradients } = step.pass({ targets, observers: [observer(given)] }).gradients();
        tf.dispose([loss, ...gradients.values()]);
      },
    };
    const watched = (): Method => method(back, { observer: observer(own) });
    const plain = await run([]);
    expect(await run([watched()])).toEqual(plain);
    // Three steps, four sites: the one sees the steps, the other the passes.
    expect(own).toHaveLength(3 * 4);
    expect(given).toEqual(own);
    const model = toyModel(2, { batchNorm: true });
    await expectNoLeak(() => run([watched()], { model }));
  });

  test.each([1, 3])(
    'that look in every way change no bit of a run that draws, and no report (%i parts)',
    async (accumulate) => {
      const drawn: string[] = [];
      const plainly = await run([methodOf({ rule: drawingRule(drawn) })], { accumulate });
      const alone = [...drawn];
      drawn.length = 0;
      const probes = ['a', 'b', 'c'].map((name) => method(curious(name)));
      const looked = await run([methodOf({ rule: drawingRule(drawn) }), ...probes], { accumulate });
      expect(looked.weights).toEqual(plainly.weights);
      expect(looked).toEqual(plainly);
      const steps = drawn.filter((text) => text.includes('step'));
      expect(steps).toEqual(alone);
      // The controls: the looks did run the rule, and its numbers are those of the step.
      const looks = drawn.filter((text) => text.includes('look'));
      // Three steps, before and after, three probes, one pass with rules and gradients, four sites.
      expect(looks).toHaveLength(3 * 2 * 3 * 4);
      if (accumulate === 1) expect(new Set(looks)).toEqual(new Set(steps.map((text) => text.replace('step', 'look'))));
      expect(plainly).not.toEqual(await run([], { accumulate }));
    },
  );

  test('go back from targets as from constants', async () => {
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 2, inputShape: [3] })] });
    const [own, given]: [number[], number[]] = [[], []];
    const observer = (seen: number[]): Observer => ({
      name: 'o',
      onBackward: (_call, _x, dy) => void seen.push(...dy.dataSync()),
    });
    const targets = (outputs: tf.Tensor): tf.Tensor => tf.add(outputs, 1);
    const probe: Probe = {
      name: 'p',
      before(step) {
        const { loss, gradients } = step.pass({ targets, observers: [observer(given)] }).gradients();
        expect(take(loss)).toBeCloseTo(1, 6);
        tf.dispose([...gradients.values()]);
      },
    };
    const { step, dispose } = stepper(model, {
      methods: [method(probe, { observer: observer(own) })],
      optimizer: toySgd(0),
      loss: meanSquaredError,
    });
    const [xs, ys] = [tf.ones([2, 3]), tf.zeros([2, 2])];
    await step({ xs, ys });
    dispose();
    // The mean over 4 numbers of squares of −1.
    expect(relativeError(given, [-0.5, -0.5, -0.5, -0.5])).toBeLessThan(1e-6);
    // The step itself goes back from outputs − 0.
    expect(own).toHaveLength(4);
    expect(relativeError(given, own)).toBeGreaterThan(0.01);
    tf.dispose([xs, ys]);
  });
});

/** What `look` finds before the first step of a run. */
async function onFirstStep<T>(
  look: (step: Step) => T,
  methods: readonly Method[] = [],
  model: tf.LayersModel = toyModel(2),
): Promise<T> {
  let found: { readonly value: T } | undefined;
  const probe: Probe = { name: 'first', before: (step) => void (found ??= { value: look(step) }) };
  await run([...methods, method(probe)], { model });
  return found!.value;
}

await describeEngines('a pass', () => {
  it('of a step that is run twice gives the same bits, with rules that draw, dropout and statistics', async () => {
    const model = toyModel(2, { batchNorm: true, dropout: 0.5 });
    const both = await onFirstStep(
      (step) => {
        const { loss, gradients } = step.pass().gradients();
        const back = [...gradients.values()].map((g) => [...g.dataSync()]);
        const again = step.pass().gradients();
        const same = [...again.gradients.values()].map((g) => [...g.dataSync()]);
        expect(same).toEqual(back);
        expect([...again.gradients.keys()]).toEqual([...gradients.keys()]);
        const losses = [lossOf(step), lossOf(step), take(loss), take(again.loss)];
        tf.dispose([...gradients.values(), ...again.gradients.values()]);
        return losses;
      },
      [methodOf({ rule: drawingRule() })],
      model,
    );
    expect(new Set(both).size).toBe(1);
    // It is the loss of the step itself.
    const { losses } = await run([methodOf({ rule: drawingRule() })]);
    expect(both[0]).toBe(losses[0]);
  });

  it('without rules has the exact loss and gradients', async () => {
    const read = (rules: 'on' | 'off', methods: Method[]) =>
      onFirstStep((step) => {
        const { loss, gradients } = step.pass({ rules }).gradients();
        const values = [...gradients].map(([name, g]) => [name, ...g.dataSync()]);
        tf.dispose([...gradients.values()]);
        return [take(loss), values];
      }, methods);
    const exact = await read('on', []);
    const ruled = [methodOf({ rule: drawingRule() })];
    expect(await read('off', ruled)).toEqual(exact);
    expect(await read('on', ruled)).not.toEqual(exact);
  });

  it('over some examples is that over a batch of them', async () => {
    await onFirstStep((step) => {
      const { xs, ys } = step.batch;
      const cut = { xs: tf.slice(xs, 2, 3), ys: tf.slice(ys, 2, 3) };
      const [few, batch, all] = [
        step.pass({ examples: [2, 5] }).outputs(),
        step.pass({ batch: cut }).outputs(),
        step.pass().outputs(),
      ];
      expect(few.shape).toEqual([3, 3]);
      expect([...few.dataSync()]).toEqual([...batch.dataSync()]);
      // The toy model without statistics sees each example alone.
      expect(relativeError(few.dataSync(), all.dataSync().slice(2 * 3, 5 * 3))).toBeLessThan(1e-6);
      const third = lossOf(step, { batch: cut, examples: [1, 2] });
      expect(third).toBe(lossOf(step, { examples: [3, 4] }));
      const losses = Array.from({ length: 12 }, (_, i) => lossOf(step, { examples: [i, i + 1] }));
      expect(losses.reduce((a, b) => a + b) / 12).toBeCloseTo(lossOf(step), 5);
      expect(new Set(losses).size).toBeGreaterThan(3);
      tf.dispose([few, batch, all, cut.xs, cut.ys]);
    });
  });

  it('leaves the weights that are not trained as they were, even when it fails', async () => {
    const model = toyModel(2, { batchNorm: true });
    await onFirstStep(
      (step) => {
        const before = weightsOf(model);
        step.pass().outputs().dispose();
        expect(weightsOf(model)).toEqual(before);
        const broken = step.pass({
          targets() {
            throw new Error('from targets');
          },
        });
        expect(() => broken.loss()).toThrow('from targets');
        expect(weightsOf(model)).toEqual(before);
        // The next pass runs as if nothing had been.
        expect(lossOf(step)).toBe(lossOf(step));
      },
      [],
      model,
    );
  });

  it('gives results that are the caller’s, inside a tidy or not', async () => {
    await onFirstStep((step) => {
      const before = tf.memory().numTensors;
      const outputs = step.pass().outputs();
      const { loss, gradients } = step.pass().gradients();
      expect(tf.memory().numTensors - before).toBe(1 + 1 + 8);
      tf.dispose([outputs, loss, ...gradients.values()]);
      expect(tf.memory().numTensors).toBe(before);
      tf.tidy(() => void step.pass().loss());
      expect(tf.memory().numTensors).toBe(before);
    });
  });
});

describe('a pass', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('shows its products to those it is given; of the methods’ observers only to those that a rule needs', async () => {
    const seen: string[] = [];
    const observer = (name: string): Observer => ({
      name,
      onBackward: ({ site, count }) => void seen.push(`${name} ${site.name} ${count ? 'step' : 'look'}`),
    });
    const rule: Rule = { name: 'needing', bias: 'unbiased', accepts: ({ index }) => index === 3 };
    const methods = [methodOf({ observer: observer('free') }), methodOf({ rule, observer: observer('needed') })];
    const heads = (rules: 'on' | 'off') =>
      onFirstStep((step) => {
        seen.length = 0;
        const { loss, gradients } = step.pass({ rules, observers: [observer('given')] }).gradients();
        tf.dispose([loss, ...gradients.values()]);
        return seen.filter((text) => text.includes('head'));
      }, methods);
    expect(await heads('on')).toEqual(['needed head look', 'given head look']);
    expect(await heads('off')).toEqual(['given head look']);
    // The step itself shows both of them all of it.
    seen.length = 0;
    await run(methods, { model: toyModel(2) });
    expect(seen).toHaveLength(3 * 4 * 2);
    expect(seen.every((text) => text.endsWith('step'))).toBe(true);
  });

  it('numbers the calls of a layer that is used twice, from the start in each pass', async () => {
    const keys: string[] = [];
    const shared = tf.layers.dense({ units: 3, name: 'shared' });
    const input = tf.input({ shape: [3] });
    const first = tf.layers.dense({ units: 3, name: 'first' }).apply(input) as tf.SymbolicTensor;
    const model = tf.model({ inputs: input, outputs: shared.apply(shared.apply(first)) as tf.SymbolicTensor });
    const rule: Rule = {
      name: 'keys',
      bias: 'unbiased',
      forward(call, x, w) {
        keys.push(`${call.site.name} ${call.key}`);
        return call.exact.forward(x, w);
      },
    };
    const probe: Probe = { name: 'p', before: (step) => void lossOf(step), after: (step) => void lossOf(step) };
    const { step, dispose } = stepper(model, {
      methods: [method(probe, { rule })],
      optimizer: toySgd(),
      loss: meanSquaredError,
      accumulate: 2,
    });
    const [xs, ys] = [tf.ones([2, 3]), tf.zeros([2, 3])];
    await step({ xs, ys });
    dispose();
    const pass = ['first 0/0', 'shared 1/0', 'shared 1/1'];
    // Before, two parts, after.
    expect(keys).toEqual([...pass, ...pass, ...pass, ...pass]);
    tf.dispose([xs, ys]);
  });

  it('has the penalties of regularisers as the step has them, and none against targets of its own', async () => {
    const model = tf.sequential({
      layers: [
        tf.layers.flatten({ inputShape: [8, 8, 1] }),
        tf.layers.dense({
          units: 3,
          kernelInitializer: 'zeros',
          useBias: false,
          kernelRegularizer: { className: 'L1L2', config: { l1: 0, l2: 0.5 } } as never,
        }),
      ],
    });
    tf.tidy(() => model.setWeights([tf.fill([64, 3], 0.25)]));
    const [whole, bare] = await onFirstStep(
      (step) => [lossOf(step), lossOf(step, { targets: () => step.batch.ys })],
      [],
      model,
    );
    // Equal logits: ln 3; ½·192·0.25².
    expect(bare).toBeCloseTo(Math.log(3), 5);
    expect(whole).toBeCloseTo(Math.log(3) + 0.5 * 192 * 0.0625, 4);
  });

  it('is what a whole-step method steps with, too', async () => {
    const descend: Method = {
      name: 'descend',
      source: 'test',
      open: ({ params }) => ({
        step: {
          async step(step) {
            const { loss, gradients } = step.pass().gradients();
            tf.tidy(() => {
              for (const { name, value } of params) value.assign(tf.sub(value, tf.mul(gradients.get(name)!, 0.1)));
            });
            tf.dispose([...gradients.values()]);
            return { loss: take(loss) };
          },
        },
      }),
    };
    const stepped = async (options: Parameters<typeof stepper>[1], model = toyModel(2, { dropout: 0.5 })) => {
      const { step, dispose } = stepper(model, { seed: 3, ...options });
      const losses: number[] = [];
      for (const batch of batches(toyImages(36), { batchSize: 12 })) losses.push((await step(batch)).loss);
      dispose();
      return { losses, weights: weightsOf(model) };
    };
    const whole = await stepped({ methods: [descend], optimizer: [] });
    const links = await stepped({ optimizer: toySgd(0.1, 0) });
    expect(relativeError(whole.weights, links.weights)).toBeLessThan(1e-6);
    expect(whole.losses[0]).toBe(links.losses[0]);
    const model = toyModel(2, { dropout: 0.5 });
    await expectNoLeak(() => stepped({ methods: [descend], optimizer: [] }, model));
  });
});

test('come in the order of methods, before and after, with the scope of the step', async () => {
  await tf.setBackend('cpu');
  const seen: string[] = [];
  const named = (name: string): Method =>
    method({
      name,
      before: ({ scope }) => void seen.push(`${name}< ${scope.clock.step}`),
      after: ({ scope }) => void seen.push(`${name}> ${scope.clock.step}`),
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

test('a call says how many rows an example has', () => {
  const rows: (number | undefined)[] = [];
  const observer = { name: 'o', onBackward: ({ rowsPerExample }: Call) => void rows.push(rowsPerExample) };
  for (const shape of [[3], [5, 3], [2, 5, 3]]) {
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 2, inputShape: shape })] });
    const attached = attach(model, methodOf({ observer }));
    tf.tidy(() => {
      tf.variableGrads(() => tf.sum(model.apply(tf.ones([4, ...shape]), { training: true }) as tf.Tensor));
    });
    attached.detach();
  }
  expect(rows).toEqual([undefined, 5, 10]);
});
