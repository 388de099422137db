import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { attach } from './attach.js';
import { FrugalError } from './errors.js';
import { groups } from './groups.js';
import type { ExchangeLink, Link } from './link.js';
import type { Method } from './method.js';
import type { Observer, Rule } from './rule.js';
import { clockAt } from './schedule.js';
import { methodOf } from './testing/descriptions.js';
import { describeEngines, expectNoLeak, relativeError } from './testing/engines.js';
import { toyModel, toySgd } from './testing/toy.js';

const method = (rule: Partial<Rule>): Method => methodOf({ rule: { name: 'probe', bias: 'biased', ...rule } });

const gradients = (model: tf.LayersModel, x: tf.Tensor, training: boolean): Float32Array[] =>
  tf.tidy(() => {
    const { grads } = tf.variableGrads(
      () => tf.mean(tf.square(model.apply(x, { training }) as tf.Tensor)) as tf.Scalar,
    );
    return model.trainableWeights.map((w) => grads[(w.read() as tf.Variable).name]!.dataSync().slice() as Float32Array);
  });

await describeEngines('an attached model', () => {
  it('computes what the plain model computes, forward and backward', () => {
    const model = toyModel(1);
    const x = tf.randomNormal([6, 8, 8, 1], 0, 1, 'float32', 3);
    const plain = gradients(model, x, true);
    const attachment = attach(model);
    const opened = gradients(model, x, true);
    attachment.detach();
    // Other order of summation in fused kernels: a few float32 ulps.
    opened.forEach((g, i) => expect(relativeError(g, plain[i]!)).toBeLessThan(2e-5));
    tf.dispose(x);
    model.dispose();
  });

  it('normalises batches as the stock layer does, with its moving averages', () => {
    const model = toyModel(2, { batchNorm: true });
    const twin = toyModel(2, { batchNorm: true });
    const x = tf.randomNormal([16, 8, 8, 1], 1, 2, 'float32', 4);
    const plain = gradients(twin, x, true);
    const attachment = attach(model);
    const opened = gradients(model, x, true);
    // The stock gradient runs through tf.moments; both are float32.
    opened.forEach((g, i) => expect(relativeError(g, plain[i]!)).toBeLessThan(1e-3));
    const norm = (m: tf.LayersModel): number[] =>
      m
        .getLayer('norm')
        .getWeights()
        .flatMap((w) => [...w.dataSync()]);
    expect(relativeError(norm(model), norm(twin))).toBeLessThan(1e-5);
    attachment.detach();
    tf.dispose([x, model, twin].map((m) => (m instanceof tf.Tensor ? m : m.weights.map((w) => w.read()))));
  });

  it('computes no dX for the first layer', () => {
    const model = toyModel(3);
    const seen: string[] = [];
    const attachment = attach(
      model,
      method({
        inputGrad: (call, dy, w, shape) => {
          seen.push(call.site.name);
          return call.exact.inputGrad(dy, w, shape);
        },
      }),
    );
    tf.tidy(() => gradients(model, tf.ones([2, 8, 8, 1]), true));
    expect(seen).toEqual(['head', 'hidden', 'conv2']);
    attachment.detach();
    model.dispose();
  });
});

describe('attach', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('finds every dense and convolution layer, with geometry and role', () => {
    const attachment = attach(toyModel());
    expect(attachment.sites.map(({ name, geometry, role }) => [name, geometry.name, role])).toEqual([
      ['conv', 'conv2d', 'hidden'],
      ['conv2', 'conv2d', 'hidden'],
      ['hidden', 'dense', 'hidden'],
      ['head', 'dense', 'output'],
    ]);
    expect(attachment.uncovered).toEqual([]);
    expect(attachment.sites.map(({ geometry }) => geometry.slides)).toEqual([true, true, false, false]);
    // Strides of 2 with padding: ⌈7/2⌉ × ⌈5/2⌉ positions.
    const y = tf.tidy(() =>
      attachment.sites[1]!.geometry.products.forward(tf.ones([1, 7, 5, 2]), tf.ones([3, 3, 2, 1])),
    );
    expect(y.shape).toEqual([1, 4, 3, 1]);
    y.dispose();
    attachment.detach();
  });

  it('walks nested models and TimeDistributed, and names what it does not cover with the reason', () => {
    const inner = tf.sequential({
      name: 'inner',
      layers: [tf.layers.dense({ name: 'a', units: 4, inputShape: [3], activation: 'relu' })],
    });
    const input = tf.input({ shape: [5, 3] });
    const timed = tf.layers
      .timeDistributed({ name: 'timed', layer: inner as unknown as tf.layers.Layer })
      .apply(input) as tf.SymbolicTensor;
    const lstm = tf.layers.lstm({ name: 'memory', units: 2 }).apply(timed) as tf.SymbolicTensor;
    const dilated = tf.layers.dense({ name: 'out', units: 1 }).apply(lstm) as tf.SymbolicTensor;
    const attachment = attach(tf.model({ inputs: input, outputs: dilated }));
    expect(attachment.sites.map((site) => site.name)).toEqual(['timed/inner/a', 'out']);
    expect(attachment.uncovered.length).toBe(3);
    expect(attachment.uncovered[0]!.reason).toContain('LSTM');
  });

  it('leaves out a dilated convolution, whose gradient TensorFlow.js does not have', () => {
    const model = tf.sequential({
      layers: [
        tf.layers.conv2d({ inputShape: [9, 9, 1], filters: 2, kernelSize: 3, dilationRate: 2 }),
        tf.layers.flatten(),
        tf.layers.dense({ units: 1 }),
      ],
    });
    expect(attach(model).uncovered.map(({ reason }) => reason)).toEqual(
      Array(2).fill('TensorFlow.js has no gradient for dilated convolutions'),
    );
  });

  it('flattens a dense input of higher rank for the rule and restores it', () => {
    const model = tf.sequential({ layers: [tf.layers.dense({ name: 'd', units: 4, inputShape: [5, 3] })] });
    const shapes: number[][] = [];
    const attachment = attach(
      model,
      method({
        forward: (call, x, w) => {
          shapes.push(x.shape);
          return call.exact.forward(x, w);
        },
      }),
    );
    const y = tf.tidy(() => model.apply(tf.ones([2, 5, 3]), { training: true }) as tf.Tensor);
    expect(shapes).toEqual([[10, 3]]);
    expect(y.shape).toEqual([2, 5, 4]);
    attachment.detach();
  });

  it('counts a layer that is used twice as two calls of one site', () => {
    const shared = tf.layers.dense({ name: 'shared', units: 3, inputShape: [3] });
    const input = tf.input({ shape: [3] });
    const model = tf.model({ inputs: input, outputs: shared.apply(shared.apply(input)) as tf.SymbolicTensor });
    const attachment = attach(model);
    tf.tidy(() => model.apply(tf.ones([4, 3]), { training: true }) as tf.Tensor);
    // 2 calls × 4 rows × 3 × 3
    expect(attachment.report()).toEqual([{ site: 'shared', rule: 'exact', done: 72, exact: 72, kept: 1 }]);
    attachment.resetReport();
    expect(attachment.report()[0]!.done).toBe(0);
    attachment.detach();
  });

  it('runs inference exact, keeps the saved JSON plain, and gives the model back as it was', async () => {
    const model = toyModel();
    const json = JSON.stringify(model.toJSON());
    const x = tf.ones([2, 8, 8, 1]);
    const before = (model.predict(x) as tf.Tensor).dataSync();
    await expectNoLeak(() => {
      const attachment = attach(model, method({ forward: (call, a, w) => tf.mul(call.exact.forward(a, w), 0) }));
      expect(JSON.stringify(model.toJSON())).toBe(json);
      tf.tidy(() => {
        expect((model.predict(x) as tf.Tensor).dataSync()).toEqual(before);
        // The negative control: the rule does act while training.
        expect((model.apply(x, { training: true }) as tf.Tensor).dataSync()).not.toEqual(before);
      });
      attachment.detach();
    });
    expect(Object.keys(model.getLayer('conv'))).not.toContain('call');
    expect(tf.tidy(() => (model.apply(x, { training: true }) as tf.Tensor).dataSync())).toEqual(before);
  });

  it('hands logits on while the trainer asks for them', () => {
    const model = toyModel();
    const attachment = attach(model);
    const sums = (logits: boolean): number =>
      tf.tidy(() => {
        attachment.begin(clockAt(0, 1), { logits });
        return tf.sum(model.apply(tf.ones([1, 8, 8, 1]), { training: true }) as tf.Tensor).dataSync()[0]!;
      });
    expect(sums(false)).toBeCloseTo(1, 5);
    expect(sums(true)).not.toBeCloseTo(1, 3);
    attachment.detach();
  });

  it('refuses two rules for one product at one site and names both', () => {
    const one = method({ name: 'one', weightGrad: (call, x, dy, shape) => call.exact.weightGrad(x, dy, shape) });
    const two = method({ name: 'two', weightGrad: (call, x, dy, shape) => call.exact.weightGrad(x, dy, shape) });
    expect(() => attach(toyModel(), one, two)).toThrow('Both one and two replace the product weightGrad at site conv');
    const other = method({ name: 'other', inputGrad: (call, dy, w, shape) => call.exact.inputGrad(dy, w, shape) });
    const attachment = attach(toyModel(), one, other);
    expect(attachment.report()[0]!.rule).toBe('one + other');
  });

  it('gives each of two rules its own plan', () => {
    const plans: unknown[] = [];
    const one = method({
      name: 'one',
      plan: () => 'plan of one',
      forward: (call, x, w) => {
        plans.push(call.plan);
        return call.exact.forward(x, w);
      },
    });
    const two = method({
      name: 'two',
      plan: () => 'plan of two',
      weightGrad: (call, x, dy, shape) => {
        plans.push(call.plan);
        return call.exact.weightGrad(x, dy, shape);
      },
    });
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 1, inputShape: [2] })] });
    const attachment = attach(model, one, two);
    tf.tidy(() => gradients(model, tf.ones([1, 2]), true));
    expect(plans).toEqual(['plan of one', 'plan of two']);
    attachment.detach();
  });

  it('lets an observer see x and dy of every site', () => {
    const seen: string[] = [];
    const model = toyModel();
    const observer: Observer = {
      name: 'eye',
      onBackward: ({ site }, x, dy) => void seen.push(`${site.name} ${x.shape[0]} ${dy.shape.at(-1)}`),
    };
    const attachment = attach(model, methodOf({ observer }));
    tf.tidy(() => gradients(model, tf.ones([5, 8, 8, 1]), true));
    expect(seen).toEqual(['head 5 3', 'hidden 5 24', 'conv2 5 12', 'conv 5 4']);
    attachment.detach();
  });

  it('looks with passes of its own: counts nothing there, runs rules or not, shows observers what they ask for', async () => {
    const model = toyModel(1);
    const x = tf.ones([2, 8, 8, 1]);
    const seen: string[] = [];
    const outer = attach(
      model,
      method({
        name: 'outer',
        bias: 'unbiased',
        accepts: ({ index }) => index === 0,
        forward({ exact, count, key, scope }, a, w) {
          seen.push(`rule ${key} ${count ? 'counts' : 'looks'}`);
          count?.('forward', 5);
          scope.keep('a', a);
          return exact.forward(a, w);
        },
      }),
    );
    const run = (): void => tf.tidy(() => void model.apply(x, { training: true }));
    run();
    const [before] = outer.report();
    // conv: 2·8·8 positions, 9 values, 4 filters; and what the rule counted by hand.
    expect(before!.done).toBe(2 * 64 * 9 * 4 + 5);
    expect(before!.exact).toBe(2 * 64 * 9 * 4);
    const kept = outer.scope.get('a');
    const eye: Observer = { name: 'eye', onBackward: ({ site, key }) => void seen.push(`eye ${site.name} ${key}`) };
    await expectNoLeak(() => {
      outer.look({ rules: 'on', observers: [] }, run);
      outer.look({ rules: 'off', observers: [eye] }, () => tf.tidy(() => void gradients(model, x, true)));
    });
    expect(outer.report()[0]).toEqual(before);
    // What a pass keeps is its own.
    expect(outer.scope.get('a')).toBe(kept);
    run();
    expect(seen).toEqual([
      'rule 0/0 counts',
      'rule 0/0 looks',
      'eye head 3/0',
      'eye hidden 2/0',
      'eye conv2 1/0',
      'eye conv 0/0',
      // The pass before the look goes on.
      'rule 0/1 counts',
    ]);
    expect(outer.report()[0]!.done).toBe(2 * before!.done);
    expect(() => attach(model)).toThrow('is attached already');
    outer.detach();
    expect(Object.hasOwn(model.layers[0]!, 'call')).toBe(false);
    x.dispose();
  });

  it('knows the site below, through a plain chain only', () => {
    const chained = attach(toyModel(1, { batchNorm: true, dropout: 0.3 }));
    expect(chained.sites.map(({ below }) => below?.through)).toEqual([
      undefined,
      ['BatchNormalization', 'MaxPooling2D', 'Dropout'],
      ['Flatten'],
      [],
    ]);
    chained.sites.forEach(({ below }, i) => expect(below?.site).toBe(chained.sites[i - 1]));
    chained.detach();
    const input = tf.input({ shape: [4] });
    const dense = (name: string, from: tf.SymbolicTensor) =>
      tf.layers.dense({ name, units: 4 }).apply(from) as tf.SymbolicTensor;
    const a = dense('a', input);
    const sum = tf.layers.add().apply([a, dense('b', a)]) as tf.SymbolicTensor;
    const joined = attach(tf.model({ inputs: input, outputs: dense('c', sum) }));
    // b takes from a, which also goes elsewhere; c takes from a sum.
    expect(joined.sites.map(({ below }) => below)).toEqual([undefined, undefined, undefined]);
    joined.detach();
  });

  it('refuses a model that is attached already or not built', () => {
    const model = toyModel();
    const attachment = attach(model);
    expect(() => attach(model)).toThrow('is attached already');
    attachment.detach();
    attach(model).detach();
    expect(() => attach(tf.sequential())).toThrow('is not built');
  });

  it('can be detached twice without touching a later attachment, and refuses steps once detached', () => {
    const model = toyModel();
    const first = attach(model);
    first.detach();
    const second = attach(model);
    first.detach();
    tf.tidy(() => gradients(model, tf.ones([2, 8, 8, 1]), true));
    expect(second.report()[0]!.done).toBeGreaterThan(0);
    expect(() => attach(model)).toThrow('is attached already');
    second.detach();
    expect(() => second.begin(clockAt(0))).toThrow('is detached');
  });

  it('tells fit of a weight that became trainable after it was attached', async () => {
    const model = toyModel();
    model.getLayer('hidden').trainable = false;
    const attachment = attach(model);
    model.getLayer('hidden').trainable = true;
    model.compile({ optimizer: attachment.optimizer(toySgd()), loss: 'categoricalCrossentropy' });
    await expect(model.fit(tf.ones([4, 8, 8, 1]), tf.ones([4, 3]), { epochs: 1, verbose: 0 })).rejects.toThrow(
      'was not trainable when the model was attached',
    );
    attachment.detach();
  });

  it('takes int32 inputs as the numbers they are', () => {
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 2, inputShape: [2], dtype: 'int32' })] });
    const attachment = attach(model);
    tf.tidy(() => {
      const x = tf.tensor2d([1, 2], [1, 2], 'int32');
      const opened = (model.apply(x, { training: true }) as tf.Tensor).dataSync();
      expect(opened).toEqual((model.apply(tf.cast(x, 'float32'), { training: true }) as tf.Tensor).dataSync());
    });
    attachment.detach();
  });

  it('keeps no tensor over steps of a loop of one’s own', async () => {
    const model = toyModel(1, { batchNorm: true, dropout: 0.3 });
    const attachment = attach(model);
    const x = tf.ones([4, 8, 8, 1]);
    const step = (i: number): void => {
      attachment.begin(clockAt(i, 10), { seed: 1 }).keep('x', x);
      gradients(model, x, true);
    };
    step(0);
    await expectNoLeak(() => {
      for (let i = 1; i < 10; i++) step(i);
    });
    attachment.detach();
  });

  it('has optimizer() refuse exchange links, probes and whole steps with the name of what to use', () => {
    const exchange: ExchangeLink = {
      kind: 'exchange',
      name: 'allReduce',
      open: () => ({ exchange: () => Promise.resolve(new Map<string, tf.Tensor>()) }),
    };
    const refused = (links: readonly Link[], ...methods: Method[]): unknown => {
      const attachment = attach(toyModel(), ...methods);
      try {
        return attachment.optimizer(links);
      } catch (error) {
        expect(FrugalError.is(error, 'CONFIG')).toBe(true);
        return (error as Error).message;
      } finally {
        attachment.detach();
      }
    };
    const gossip: Link = { ...toySgd(), name: 'gossip', exchanges: true };
    const whole = methodOf({ step: { step: () => Promise.resolve({ loss: 0 }) } }, { name: 'enkf' });
    const probing = methodOf({ probes: [{ name: 'look' }] });
    expect([
      refused([exchange, toySgd()]),
      refused([gossip]),
      refused([toySgd()], whole),
      refused([toySgd()], probing),
    ]).toEqual([
      expect.stringMatching(/^allReduce exchanges tensors .* Use train\(/),
      expect.stringMatching(/^gossip exchanges tensors .* Use train\(/),
      expect.stringMatching(/^enkf replaces the whole training step.* Use train\(/),
      expect.stringMatching(/^look makes further passes .* model.fit cannot host. Use train\(/),
    ]);
  });

  it('frees what optimizer() opened when it refuses', async () => {
    const attachment = attach(toyModel());
    const gossip: Link = { ...toySgd(), name: 'gossip', exchanges: true };
    await expectNoLeak(() => expect(() => attachment.optimizer(gossip)).toThrow('gossip exchanges'));
    attachment.detach();
  });

  it('has fit refuse links and methods that must load something first, until they have', async () => {
    let loaded = 0;
    const load = {
      prepare: async () => {
        loaded++;
      },
    };
    const link: Link = { kind: 'gradient', name: 'inverse', open: () => ({ ...load, transform: (g) => new Map(g) }) };
    const cases: readonly (readonly [string, readonly Link[], readonly Method[]])[] = [
      ['inverse', [link, toySgd()], []],
      ['inverse', [toySgd()], [methodOf({}, { name: 'm', links: [link] })]],
      ['loading', [toySgd()], [methodOf(load, { name: 'loading' })]],
      ['groups', [groups([{ optimizer: [link, toySgd()] }])], []],
    ];
    const fit = { epochs: 1, batchSize: 4, verbose: 0 } as const;
    const [xs, ys] = [tf.ones([4, 8, 8, 1]), tf.ones([4, 3])];
    for (const [name, links, methods] of cases) {
      const model = toyModel();
      const attachment = attach(model, ...methods);
      const optimizer = attachment.optimizer(links);
      model.compile({ optimizer, loss: 'meanSquaredError' });
      await expect(model.fit(xs, ys, fit)).rejects.toThrow(
        `${name} must load something before its first step, which model.fit cannot await.`,
      );
      loaded = 0;
      await optimizer.prepare();
      expect(loaded).toBe(1);
      await model.fit(xs, ys, fit);
      optimizer.dispose();
      attachment.detach();
    }
  });
});
