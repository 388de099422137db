import {
  attach,
  clockAt,
  dense as denseGeometry,
  FrugalError,
  type Method,
  openScope,
  registerKernels,
  selectionOf,
  stream,
  train,
  useEngine,
} from '@frugal/core';
import { describeEngines, expectNoLeak } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bernoulli } from './bernoulli.js';
import { columnRow } from './column-row.js';
import { type SamplingMode, type SamplingOptions, samplingMethod } from './rule.js';
import { chooseUniform } from './selection.js';
import { expectOwnDerivatives } from './testing/derivatives.js';
import { cnn, dense, descent, makeData, mlp, weightsOf } from './testing/models.js';
import {
  exactValues,
  GEOMETRIES,
  makeCall,
  makeOperands,
  makeSite,
  type Operands,
  ruleOf,
  runRule,
  selectionIn,
} from './testing/products.js';
import { topK } from './top-k.js';
import { uniform } from './uniform.js';
import { winnerTakeAll } from './winner-take-all.js';

const METHODS = { topK, uniform, bernoulli, columnRow, winnerTakeAll };
const FACTORIES = Object.entries(METHODS);
const RANDOM = FACTORIES.filter(([name]) => name !== 'topK');
const MODES: readonly SamplingMode[] = ['through', 'backward', 'blackBox'];

beforeAll(async () => {
  await useEngine('cpu', { log: () => undefined });
});

/** One step of the attached model under a loss that is linear in its outputs: L = Σ Y∘R. */
function linearStep(model: tf.LayersModel, x: tf.Tensor, r: tf.Tensor): { y: Float32Array; grads: Float32Array[] } {
  let y: Float32Array = new Float32Array();
  const variables = model.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const { value, grads } = tf.variableGrads(() => {
    const output = model.apply(x, { training: true }) as tf.Tensor;
    y = output.dataSync() as Float32Array;
    return tf.sum(tf.mul(output, r));
  }, variables);
  const values = variables.map(({ name }) => (grads[name] as tf.Tensor).dataSync() as Float32Array);
  tf.dispose([value, ...Object.values(grads)]);
  return { y, grads: values };
}

/** Trains for three steps an epoch, or as many as `batchSize` makes of 36 examples. */
const trainOnce = async (model: tf.LayersModel, methods: readonly Method[], { epochs = 2, batchSize = 12 } = {}) => {
  const shape = (model.inputs[0] as tf.SymbolicTensor).shape.slice(1) as number[];
  const options = { methods, optimizer: descent, epochs, batchSize, seed: 1, progress: false } as const;
  const report = await train(model, makeData(36, shape), options);
  const weights = weightsOf(model);
  model.dispose();
  return { weights, report };
};

describe('options', () => {
  const refusal = (make: () => unknown): string => {
    try {
      make();
    } catch (error) {
      expect(FrugalError.is(error, 'CONFIG')).toBe(true);
      return (error as Error).message;
    }
    return 'accepted';
  };

  it.each(FACTORIES)('of %s are refused with its name, what was expected and what came', (name, make) => {
    for (const keep of [0, 1.5, -0.1, Number.NaN, Infinity])
      expect(refusal(() => make({ keep }))).toBe(`${name}: expected keep in (0, 1] but received ${keep}.`);
    expect(refusal(() => make({} as SamplingOptions))).toContain(
      `${name}: expected keep to be a number, a schedule or`,
    );
    expect(refusal(() => make({ keep: '0.5 * frequency' }))).toContain('"frequency"');
    const misspelt = { keep: 0.5, min_k: 3 } as SamplingOptions;
    expect(refusal(() => make(misspelt))).toBe(
      `${name}: expected options among keep, mode, minK, skip, output but received "min_k". Check the spelling.`,
    );
    expect(refusal(() => make({ keep: 0.5, mode: 'forward' as SamplingMode }))).toContain(
      `${name}: expected mode to be one of 'through', 'backward', 'blackBox'`,
    );
    for (const minK of [0, 2.5, -3])
      expect(refusal(() => make({ keep: 0.5, minK }))).toContain(`${name}: expected minK`);
    expect(refusal(() => make({ keep: 0.5 }))).toBe('accepted');
  });

  it('refuse a schedule that leaves (0, 1] at the step where it does', async () => {
    await expect(trainOnce(mlp(), [uniform({ keep: ({ step }) => 1 - 0.25 * step, minK: 1 })])).rejects.toThrow(
      /^uniform: expected keep at step 4 in \(0, 1\] but received 0\./,
    );
  });

  it('say honestly whether the gradient is unbiased', () => {
    const unbiased = FACTORIES.flatMap(([name, make]) =>
      MODES.filter((mode) => ruleOf(make({ keep: 0.5, mode })).bias === 'unbiased').map((mode) => `${name} ${mode}`),
    );
    expect(unbiased).toEqual([
      'uniform backward',
      'bernoulli backward',
      'columnRow backward',
      'winnerTakeAll backward',
    ]);
  });
});

await describeEngines('keep: 1', () => {
  it.each([
    ['dense', mlp],
    ['convolution', cnn],
  ] as const)('trains a %s network as exact training does, bit for bit, in every mode', async (_title, build) => {
    const initial = weightsOf(build());
    const exact = await trainOnce(build(), [], { epochs: 1 });
    expect(exact.weights).not.toEqual(initial);
    for (const [name, make] of FACTORIES) {
      for (const mode of MODES) {
        const { weights, report } = await trainOnce(build(), [make({ keep: 1, mode, output: true })], { epochs: 1 });
        expect(weights, `${name} ${mode}`).toEqual(exact.weights);
        expect(report.sites.map(({ rule, kept }) => [rule, kept])).toEqual(report.sites.map(() => [name, 1]));
      }
    }
  });
});

await describeEngines('keep: 0.5', () => {
  it('trains otherwise than exact training, in every mode of every method, and stays finite', async () => {
    const exact = await trainOnce(mlp(), []);
    for (const [name, make] of FACTORIES) {
      for (const mode of MODES) {
        const { weights } = await trainOnce(mlp(), [make({ keep: 0.5, minK: 1, mode })]);
        expect(weights, `${name} ${mode}`).not.toEqual(exact.weights);
        expect(weights.every((values) => values.every(Number.isFinite))).toBe(true);
      }
    }
  });
});

describe('mode through', () => {
  beforeEach(() => registerKernels(tf.getBackend()));

  it('multiplies, and passes gradients, through the chosen inputs only: hand-computed', () => {
    // Columns of x: |·| = 1, √5, 3, √2. Rows of w: 1, 2, √2, √2. Products 1, 4.5, 4.2, 2: top 2 are inputs 1 and 2.
    const operands: Operands = {
      geometry: denseGeometry,
      x: tf.tensor2d([
        [1, 2, 0, 1],
        [0, 1, 3, 1],
      ]),
      w: tf.variable(
        tf.tensor2d([
          [1, 0],
          [0, 2],
          [1, 1],
          [1, -1],
        ]),
      ),
      dy: tf.tensor2d([
        [1, 1],
        [1, 0],
      ]),
    };
    const { forward, inputGrad, weightGrad, plan } = runRule(
      ruleOf(topK({ keep: 0.5, minK: 1 })),
      operands,
      openScope(clockAt(0), 0),
    );
    expect(selectionIn(plan).indices).toEqual([1, 2]);
    expect([...forward]).toEqual([0, 4, 3, 5]);
    expect([...inputGrad]).toEqual([0, 2, 2, 0, 0, 0, 1, 0]);
    expect([...weightGrad]).toEqual([0, 0, 3, 2, 3, 0, 0, 0]);
  });

  describe.each(GEOMETRIES)('at %s', (_title, geometry, convolution) => {
    it.each(FACTORIES)(
      '%s returns the derivatives of its own sampled Y: finite differences, the sample held',
      (_n, make) => expectOwnDerivatives(make, geometry, convolution),
    );
  });
});

describe('modes of an attached model', () => {
  const x = () => tf.randomNormal([12, 24], 0, 1, 'float32', 1);
  const r = () => tf.randomNormal([12, 8], 0, 1, 'float32', 2);
  const build = () =>
    tf.sequential({ layers: [dense('a', 32, { inputShape: [24] }), dense('b', 8, { useBias: false })] });
  /** Y, dW of a, its bias, and dW of b. */
  const stepOf = (...methods: Method[]) => {
    const model = build();
    const attached = attach(model, ...methods);
    attached.begin(clockAt(0), { seed: 2 });
    const step = linearStep(model, x(), r());
    attached.detach();
    model.dispose();
    return step;
  };

  it.each(FACTORIES)('%s, backward: Y is exact to the bit, and the gradients are not', (_name, make) => {
    const exact = stepOf();
    const sampled = stepOf(make({ keep: 0.5, minK: 1, mode: 'backward' }));
    expect(sampled.y).toEqual(exact.y);
    expect(sampled.grads[0]).not.toEqual(exact.grads[0]);
    expect(sampled.grads[2]).toEqual(exact.grads[2]);
  });

  it.each(FACTORIES)(
    '%s, blackBox: Y is sampled, and the gradients of a linear loss are exact to the bit',
    (_name, make) => {
      const exact = stepOf();
      const sampled = stepOf(make({ keep: 0.5, minK: 1, mode: 'blackBox' }));
      expect(sampled.y).not.toEqual(exact.y);
      expect(sampled.grads[0]).toEqual(exact.grads[0]);
      expect(sampled.grads[1]).toEqual(exact.grads[1]);
    },
  );

  it.each(FACTORIES)('%s, through: dW is zero in whole rows, those of the inputs left out', (_name, make) => {
    const rows = (dw: Float32Array) =>
      Array.from({ length: 24 }, (_, i) => dw.subarray(32 * i, 32 * i + 32).some((v) => v !== 0));
    const used = rows(stepOf(make({ keep: 0.5, minK: 1 })).grads[0] as Float32Array).filter(Boolean).length;
    expect(rows(stepOf().grads[0] as Float32Array).every(Boolean)).toBe(true);
    expect(used).toBeGreaterThan(4);
    // Bernoulli keeps 12 on average, with a standard deviation below 2.5.
    expect(used).toBeLessThan(20);
  });

  it('two methods may share a site if they take different products', () => {
    const both = stepOf(topK({ keep: 0.5, mode: 'blackBox' }), uniform({ keep: 0.5, mode: 'backward', minK: 1 }));
    const one = stepOf(topK({ keep: 0.5, mode: 'blackBox' }));
    const other = stepOf(uniform({ keep: 0.5, mode: 'backward', minK: 1 }));
    expect(both.y).toEqual(one.y);
    expect(both.grads[0]).toEqual(other.grads[0]);
  });

  it('two rules of one product are a conflict that names both', () => {
    const model = build();
    const clash = () => attach(model, topK({ keep: 0.5 }), bernoulli({ keep: 0.5, mode: 'blackBox' }));
    expect(clash).toThrow(/^Both topK and bernoulli replace the product forward at site a;/);
    try {
      clash();
    } catch (error) {
      expect(FrugalError.is(error, 'CONFLICT')).toBe(true);
    }
    attach(model, topK({ keep: 0.5 }), bernoulli({ keep: 0.5, skip: ({ name }) => name === 'a' })).detach();
    model.dispose();
  });
});

describe('the report', () => {
  /** Multiply-adds of one step of 64 → 64 → 32 → 3 on 16 examples. */
  const step = (method: Method, layers = [64, 32], input = [64], batch = 16) => {
    const model = tf.sequential({
      layers: [
        ...layers.map((units, i) => dense(`d${i}`, units, i === 0 ? { inputShape: input } : {})),
        dense('out', 3, layers.length === 0 ? { inputShape: input } : {}),
      ],
    });
    const attached = attach(model, method);
    attached.begin(clockAt(0, 4), { seed: 1 });
    tf.tidy(() => linearStep(model, tf.randomNormal([batch, ...input], 0, 1, 'float32', 3), tf.ones([batch, 3])));
    attached.detach();
    model.dispose();
    return Object.fromEntries(attached.report().map(({ site, ...rest }) => [site, rest]));
  };

  it('counts half of all three products for keep 0.5 in mode through: dense 64 → 32', () => {
    // Exact: 16·64·32 for each of Y, dX, dW; the first layer has no dX.
    const report = step(topK({ keep: 0.5 }));
    expect(report['d1']).toEqual({ rule: 'topK', done: 1.5 * 16 * 64 * 32, exact: 3 * 16 * 64 * 32, kept: 0.5 });
    expect(report['d0']).toEqual({ rule: 'topK', done: 16 * 64 * 64, exact: 2 * 16 * 64 * 64, kept: 0.5 });
    expect(step(uniform({ keep: 0.5 }))['d1']?.kept).toBe(0.5);
  });

  it('counts Y whole in mode backward, and the gradients whole in mode blackBox', () => {
    // 64 → 32: dX keeps 16 of 32 outputs, dW 8 of 16 examples.
    expect(step(topK({ keep: 0.5, mode: 'backward', minK: 1 }))['d1']?.kept).toBeCloseTo((1 + 0.5 + 0.5) / 3, 12);
    expect(step(topK({ keep: 0.5, mode: 'blackBox' }))['d1']?.kept).toBeCloseTo((0.5 + 1 + 1) / 3, 12);
    // A minimum of 10 of the 16 examples holds for dW.
    expect(step(topK({ keep: 0.5, mode: 'backward' }))['d1']?.kept).toBeCloseTo((1 + 0.5 + 10 / 16) / 3, 12);
  });

  it('counts repeated draws once: column-row sampling does at most what it is allowed', () => {
    const { kept } = step(columnRow({ keep: 0.5 }))['d1'] as { kept: number };
    expect(kept).toBeLessThan(0.5);
    // 32 draws from 64 nearly equal weights hit 64·(1 − (1 − 1/64)^32) = 25 on average.
    expect(kept).toBeGreaterThan(18 / 64);
  });

  it.each([1, 3])('a first layer of %i channels stays exact, by minK', (channels) => {
    const model = tf.sequential({
      layers: [
        tf.layers.conv2d({ name: 'c0', filters: 20, kernelSize: 3, inputShape: [6, 6, channels] }),
        tf.layers.conv2d({ name: 'c1', filters: 12, kernelSize: 3 }),
        tf.layers.flatten(),
        dense('out', 3),
      ],
    });
    const attached = attach(model, topK({ keep: 0.5 }));
    attached.begin(clockAt(0), { seed: 1 });
    tf.tidy(() => linearStep(model, tf.randomNormal([2, 6, 6, channels]), tf.ones([2, 3])));
    // c1: 2 images, 2 × 2 outputs of 12, kernel 3 × 3 × 20, three products.
    const exact = 3 * 2 * 4 * 12 * 9 * 20;
    expect(attached.report().map(({ site, kept }) => [site, kept])).toEqual([
      ['c0', 1],
      ['c1', 0.5],
      ['out', 1],
    ]);
    expect(attached.report()[1]).toEqual({ site: 'c1', rule: 'topK', done: exact / 2, exact, kept: 0.5 });
    attached.detach();
    model.dispose();
  });

  it('the output layer is exact unless asked for, also when it is the only one', () => {
    expect(step(topK({ keep: 0.5 }))['out']).toMatchObject({ rule: 'exact', kept: 1 });
    expect(step(topK({ keep: 0.5, output: true }))['out']).toMatchObject({ rule: 'topK', kept: 0.5 });
    expect(step(topK({ keep: 0.5 }), [])['out']?.kept).toBe(1);
  });

  it('sites that skip names are exact', () => {
    const report = step(topK({ keep: 0.5, skip: ({ name }) => name === 'd0' }));
    expect([report['d0']?.rule, report['d0']?.kept, report['d1']?.kept]).toEqual(['exact', 1, 0.5]);
  });

  it('layers in nested models are sampled', () => {
    const inner = tf.sequential({ name: 'inner', layers: [dense('deep', 32, { inputShape: [64] })] });
    const model = tf.sequential({ layers: [dense('d0', 64, { inputShape: [64] }), inner, dense('out', 3)] });
    const attached = attach(model, topK({ keep: 0.25 }));
    attached.begin(clockAt(0), {});
    tf.tidy(() => linearStep(model, tf.randomNormal([4, 64]), tf.ones([4, 3])));
    expect(attached.report().find(({ site }) => site === 'inner/deep')).toMatchObject({ rule: 'topK', kept: 0.25 });
    attached.detach();
    model.dispose();
  });

  it('keep follows a schedule, as a function and as a formula', () => {
    const kept = (keep: SamplingOptions['keep']) => {
      const model = tf.sequential({ layers: [dense('d', 16, { inputShape: [64] }), dense('out', 3)] });
      const attached = attach(model, uniform({ keep }));
      const series = [0, 1, 2, 3].map((index) => {
        attached.resetReport();
        attached.begin(clockAt(index, 4), {});
        tf.tidy(() => linearStep(model, tf.ones([4, 64]), tf.ones([4, 3])));
        return attached.report()[0]?.kept;
      });
      attached.detach();
      model.dispose();
      return series;
    };
    expect(kept('0.5 + 0.5*t')).toEqual([0.5, 0.625, 0.75, 0.875]);
    expect(kept(({ step: index }) => (index < 2 ? 0.25 : 1))).toEqual([0.25, 0.25, 1, 1]);
  });
});

describe('draws', () => {
  beforeEach(() => registerKernels(tf.getBackend()));

  it('a layer used twice draws twice, and each call passes gradients through its own sample', () => {
    const K = 16;
    const shared = tf.layers.dense({ name: 'shared', units: K, useBias: false, kernelInitializer: 'identity' });
    const input = tf.input({ shape: [K] });
    const head = tf.layers.dense({ name: 'head', units: K, useBias: false, kernelInitializer: 'identity' });
    const model = tf.model({
      inputs: input,
      outputs: head.apply(shared.apply(shared.apply(input))) as tf.SymbolicTensor,
    });
    const attached = attach(model, uniform({ keep: 0.5, minK: 1 }));
    attached.begin(clockAt(0), { seed: 1 });
    const { y, grads } = linearStep(model, tf.ones([1, K]), tf.ones([1, K]));
    // With W = I each call multiplies by a mask P of 2 and 0: y = P1·P2. Both calls add to dW:
    // dW_ij = P1_i·P2_j (from the first: x Wᵀ-passed gradient) + P1_i·P2_i (from the second).
    const dw = grads[0] as Float32Array;
    const both = [...y.keys()].filter((i) => y[i] === 4);
    expect(both.length).toBeGreaterThan(0);
    expect(both.length, 'the two samples differ').toBeLessThan(K / 2);
    const first = Float32Array.from({ length: K }, (_, i) =>
      dw.subarray(i * K, i * K + K).some((v) => v !== 0) ? 2 : 0,
    );
    const row = dw.subarray((both[0] as number) * K, (both[0] as number) * K + K);
    const second = row.map((v) => (v - 4) / 2);
    expect([...first].filter(Boolean).length).toBe(K / 2);
    expect([...second].filter(Boolean).length).toBe(K / 2);
    expect(y).toEqual(first.map((v, i) => v * second[i]!));
    const expected = Float32Array.from({ length: K * K }, (_, ij) => {
      const [i, j] = [Math.floor(ij / K), ij % K] as [number, number];
      return first[i]! * second[j]! + first[i]! * second[i]!;
    });
    expect(dw).toEqual(expected);
    attached.detach();
    model.dispose();
  });

  it.each(MODES)('come from the stream of method, call and product in mode %s', (mode) => {
    const seen: number[] = [];
    const spy = samplingMethod(
      {
        name: 'spy',
        source: '',
        unbiased: false,
        by: 'none',
        choose(weights, k, random) {
          seen.push(random.next());
          return chooseUniform(weights.length, k, random);
        },
      },
      { keep: 0.5, minK: 1, mode },
    );
    const operands = makeOperands(denseGeometry);
    const scope = openScope(clockAt(3), 5, 1);
    runRule(ruleOf(spy), operands, scope);
    const rule = ruleOf(spy);
    const call = makeCall(makeSite(operands), scope, 1);
    if (mode === 'backward') rule.weightGrad?.(call, operands.x, operands.dy, operands.w.shape);
    else rule.plan?.(call, operands.x, operands.w);
    const paths =
      mode === 'backward' ? ['0/0 inputGrad', '0/0 weightGrad', '0/1 weightGrad'] : ['0/0 forward', '0/1 forward'];
    const expected = paths.map((path) => stream(5, 'step', 3, 'rank', 1, 'spy', ...path.split(' ')).next());
    expect(seen).toEqual(expected);
  });

  it('a pass that only looks draws what the step draws, before it and after it, and is not counted', () => {
    const model = mlp();
    const attached = attach(model, bernoulli({ keep: 0.5, minK: 1 }));
    const x = tf.randomNormal([8, 24], 0, 1, 'float32', 1);
    const outputs = () => [...(model.apply(x, { training: true }) as tf.Tensor).dataSync()];
    const look = () => attached.look({ rules: 'on', observers: [] }, outputs);
    attached.begin(clockAt(0), { seed: 3 });
    const before = look();
    expect(attached.report().every(({ done }) => done === 0)).toBe(true);
    const step = outputs();
    expect([before, look()]).toEqual([step, step]);
    attached.begin(clockAt(1), { seed: 3 });
    expect(outputs()).not.toEqual(step);
    attached.detach();
    model.dispose();
  });

  it('one description in two runs at a time draws in each what it draws alone', () => {
    const method = uniform({ keep: 0.5, minK: 1, mode: 'blackBox' });
    const x = tf.randomNormal([8, 24], 0, 1, 'float32', 1);
    const outputsOf = (model: tf.LayersModel) => [...(model.apply(x, { training: true }) as tf.Tensor).dataSync()];
    const alone = (seed: number) => {
      const model = mlp();
      const attached = attach(model, method);
      attached.begin(clockAt(0), { seed });
      const outputs = outputsOf(model);
      attached.detach();
      return outputs;
    };
    const models = [mlp(), mlp()];
    const runs = models.map((model) => attach(model, method));
    runs.forEach((run, seed) => run.begin(clockAt(0), { seed }));
    const together = models.map(outputsOf);
    runs.forEach((run) => run.detach());
    expect(together).toEqual([alone(0), alone(1)]);
    expect(together[0]).not.toEqual(together[1]);
  });

  it.each(FACTORIES)(
    '%s gives the same bits for the same seed, also when one method object serves two runs',
    async (_n, make) => {
      const method = make({ keep: 0.5, minK: 1 });
      // One epoch of one step: the second run starts at the step where the first ended.
      const one = { epochs: 1, batchSize: 36 };
      const { weights, report } = await trainOnce(mlp(), [method], one);
      expect(report.steps).toBe(1);
      expect((await trainOnce(mlp(), [method], one)).weights).toEqual(weights);
      expect((await trainOnce(mlp(), [make({ keep: 0.5, minK: 1 })], one)).weights).toEqual(weights);
      const operands = makeOperands(denseGeometry);
      const y = () => runRule(ruleOf(method), operands, openScope(clockAt(0), 1)).forward;
      expect(y()).toEqual(y());
    },
  );

  it('differ by seed, step and rank for the random methods, and never for top-k', () => {
    const ones = tf.ones([40, 40]);
    const operands: Operands = { geometry: denseGeometry, x: ones, w: tf.variable(ones), dy: ones };
    // Equal weights: every index is as likely as any other.
    const indices = (make: (options: SamplingOptions) => Method, scope = openScope(clockAt(0), 1)) => {
      const { plan } = runRule(ruleOf(make({ keep: 0.5, minK: 1 })), operands, scope);
      return selectionIn(plan).indices;
    };
    const scopes = () => [openScope(clockAt(0), 2), openScope(clockAt(1), 1), openScope(clockAt(0), 1, 1)];
    for (const [name, make] of RANDOM)
      for (const scope of scopes()) expect(indices(make, scope), name).not.toEqual(indices(make));
    for (const scope of scopes()) expect(indices(topK, scope)).toEqual(indices(topK));
  });
});

describe('what cannot be sampled', () => {
  beforeEach(() => registerKernels(tf.getBackend()));

  const at = (x: tf.Tensor): Operands => ({ ...makeOperands(denseGeometry), x });

  it.each(FACTORIES)('%s gives zero for an operand that is zero throughout', (_name, make) => {
    const values = runRule(ruleOf(make({ keep: 0.5, minK: 1 })), at(tf.zeros([6, 6])), openScope(clockAt(0), 0));
    expect(values.forward).toEqual(new Float32Array(36));
    expect(values.weightGrad).toEqual(new Float32Array(36));
    expect(values.inputGrad.every(Number.isFinite)).toBe(true);
  });

  it.each(FACTORIES.filter(([name]) => name !== 'uniform'))('%s does not hide a NaN', (_name, make) => {
    const bad = Float32Array.from({ length: 36 }, (_, i) => (i === 14 ? Number.NaN : 1));
    for (const mode of ['through', 'blackBox'] as const) {
      const operands = at(tf.tensor2d(bad, [6, 6]));
      const { forward } = runRule(ruleOf(make({ keep: 0.5, minK: 1, mode })), operands, openScope(clockAt(0), 0));
      expect(forward.some(Number.isNaN)).toBe(true);
    }
  });

  it('a sample of nothing is zero in all three products, with their shapes', () => {
    const none = samplingMethod(
      {
        name: 'none',
        source: '',
        unbiased: false,
        by: 'pairs',
        choose: () => selectionOf(Int32Array.of(0), Float32Array.of(0)),
      },
      { keep: 0.5, minK: 1 },
    );
    for (const [, geometry] of GEOMETRIES) {
      const operands = makeOperands(geometry);
      const values = runRule(ruleOf(none), operands, openScope(clockAt(0), 0));
      const exact = exactValues(operands);
      for (const name of ['forward', 'inputGrad', 'weightGrad'] as const)
        expect(values[name].map(Math.abs)).toEqual(new Float32Array(exact[name].length));
    }
  });
});

describe('memory', () => {
  it.each(MODES)('train leaves no tensors behind in mode %s', async (mode) => {
    const model = cnn();
    const data = makeData(60, [4, 4, 12]);
    for (const [, make] of FACTORIES) {
      await expectNoLeak(() =>
        train(model, data, {
          methods: [make({ keep: 0.5, minK: 1, mode })],
          optimizer: descent,
          epochs: 1,
          batchSize: 6,
          progress: false,
        }),
      );
    }
    model.dispose();
  });

  it.each(MODES)('fit leaves no tensors behind over ten steps in mode %s, and samples', async (mode) => {
    const model = cnn();
    const attached = attach(model, bernoulli({ keep: 0.5, minK: 1, mode }));
    model.compile({ optimizer: attached.optimizer(descent), loss: 'meanSquaredError' });
    const [x, y] = [tf.randomNormal([10, 4, 4, 12]), tf.randomNormal([10, 3])];
    const fit = () => model.fit(x, y, { epochs: 5, batchSize: 5, verbose: 0 });
    await fit();
    const bytes = tf.memory().numBytes;
    await expectNoLeak(fit);
    expect(tf.memory().numBytes).toBe(bytes);
    const [first] = attached.report();
    expect(first?.kept).toBeLessThan(0.95);
    attached.detach();
  });
});
