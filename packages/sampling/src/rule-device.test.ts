import {
  attach,
  clockAt,
  dense as denseGeometry,
  type Method,
  openScope,
  sampledSlices,
  type Selection,
  stepper,
  stream,
  train,
} from '@frugal/core';
import { expectNoLeak } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bernoulli } from './bernoulli.js';
import { columnRow } from './column-row.js';
import { type SamplingMode, type SamplingOptions, samplingMethod } from './rule.js';
import { chooseDraws, chooseTop, chooseUniform, drawProbabilities } from './selection.js';
import { chooseDrawsOnDevice } from './selection-device.js';
import { expectOwnDerivatives } from './testing/derivatives.js';
import { countReads, useFarEngine } from './testing/far-engine.js';
import { cnn, descent, makeData, mlp, weightsOf } from './testing/models.js';
import {
  allScores,
  denseWeights,
  expectUnbiased,
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

const ON_DEVICE = Object.entries({ topK, columnRow, winnerTakeAll });
const UNREAD = Object.entries({ topK, columnRow, winnerTakeAll, uniform });
const MODES: readonly SamplingMode[] = ['through', 'backward', 'blackBox'];

beforeAll(useFarEngine);

/** Forward and backward pass of an attached model; returns how often it was read from the engine meanwhile. */
function readsOfPass(model: tf.LayersModel, method: Method, shape: number[]): number {
  const attached = attach(model, method);
  attached.begin(clockAt(0), { seed: 1 });
  const variables = model.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const x = tf.randomNormal([12, ...shape], 0, 1, 'float32', 1);
  const reads = countReads();
  const { grads } = tf.variableGrads(
    () => tf.sum(tf.square(model.apply(x, { training: true }) as tf.Tensor)),
    variables,
  );
  reads.stop();
  expect(attached.report().some(({ kept }) => kept < 1)).toBe(true);
  expect(Object.values(grads).every((grad) => grad.dataSync().every(Number.isFinite))).toBe(true);
  attached.detach();
  return reads.count();
}

describe('on an engine whose reads are not free', () => {
  it.each(UNREAD)('%s reads nothing in a pass forward and back, in no mode', (_name, make) => {
    for (const mode of MODES) {
      const method = make({ keep: 0.5, minK: 1, mode, output: true });
      expect(readsOfPass(mlp(), method, [24]), mode).toBe(0);
      expect(readsOfPass(cnn(), method, [4, 4, 12]), mode).toBe(0);
    }
    expect(readsOfPass(mlp(), topK({ keep: 0.5, minK: 1, by: 'weights' }), [24])).toBe(0);
  });

  it('bernoulli reads the norms of both operands of each product: the counter sees it', () => {
    // Y of three layers.
    expect(readsOfPass(mlp(), bernoulli({ keep: 0.5, minK: 1, output: true }), [24])).toBe(6);
  });

  it('a step of the trainer reads once, what it reports', async () => {
    const model = mlp();
    const run = stepper(model, { methods: [winnerTakeAll({ keep: 0.5, minK: 1 })], optimizer: descent });
    const [xs, ys] = [tf.randomNormal([12, 24]), tf.oneHot(tf.zeros([12], 'int32'), 3).toFloat()];
    await run.prepare();
    const reads = countReads();
    await run.step({ xs, ys });
    reads.stop();
    expect(reads.count()).toBe(1);
    run.dispose();
  });

  it.each(UNREAD)('%s trains otherwise than exact training, and leaves no tensors behind', async (_name, make) => {
    const data = makeData(36, [4, 4, 12]);
    const trained = async (methods: readonly Method[]) => {
      const model = cnn();
      await expectNoLeak(() =>
        train(model, data, { methods, optimizer: descent, epochs: 1, batchSize: 12, seed: 1, progress: false }),
      );
      const weights = weightsOf(model);
      model.dispose();
      return weights;
    };
    const exact = await trained([]);
    for (const mode of MODES) {
      const sampled = await trained([make({ keep: 0.5, minK: 1, mode })]);
      expect(sampled).not.toEqual(exact);
      expect(sampled.every((values) => values.every(Number.isFinite))).toBe(true);
    }
  });

  it.each(ON_DEVICE)('%s counts as many multiply-adds as keep says, whatever is drawn', (_name, make) => {
    const model = tf.sequential({
      layers: [tf.layers.dense({ name: 'd', units: 16, inputShape: [64] }), tf.layers.dense({ name: 'out', units: 3 })],
    });
    const attached = attach(model, make({ keep: 0.25, minK: 1, output: true }));
    attached.begin(clockAt(0), { seed: 1 });
    model.apply(tf.randomNormal([8, 64]), { training: true });
    expect(attached.report().map(({ kept }) => kept)).toEqual([0.25, 0.25]);
    attached.detach();
  });
});

describe('the rule on the device', () => {
  describe.each(GEOMETRIES)('at %s', (_title, geometry, convolution) => {
    it.each(ON_DEVICE)('%s returns the derivatives of its own sampled Y, repeated draws and all', (_name, make) => {
      expectOwnDerivatives(make, geometry, convolution);
    });
  });

  it('keeps its tensors until the step ends, and not longer', async () => {
    const operands = makeOperands(denseGeometry);
    await expectNoLeak(() => {
      const scope = openScope(clockAt(0), 1);
      const { plan } = runRule(ruleOf(columnRow({ keep: 0.5, minK: 1 })), operands, scope);
      const { size, indices, scales } = (plan as { selection: Selection }).selection;
      expect(size).toBe(3);
      for (const kept of [indices, scales]) {
        expect(kept).toBeInstanceOf(tf.Tensor);
        expect((kept as tf.Tensor).isDisposed).toBe(false);
      }
      scope.end();
      expect((indices as tf.Tensor).isDisposed).toBe(true);
    });
  });

  it('chooses as on the host: topK the same indices, columnRow the same draws', () => {
    const operands = makeOperands(denseGeometry);
    const { w } = denseWeights(operands);
    const planOf = (make: (options: SamplingOptions) => Method, step: number) =>
      selectionIn(runRule(ruleOf(make({ keep: 0.5, minK: 1 })), operands, openScope(clockAt(step), 1)).plan);
    expect(Int32Array.from(planOf(topK, 0).indices).sort()).toEqual(chooseTop(w, 3).indices);
    for (let step = 0; step < 20; step++) {
      const draws = stream(1, 'step', step, 'rank', 0, 'columnRow', '0/0', 'forward');
      const host = chooseDraws(drawProbabilities(w), 3, draws);
      const { indices } = planOf(columnRow, step);
      expect(Int32Array.from(new Set(indices)).sort()).toEqual(host.indices);
    }
  });

  it('topK by weights does not look at the inputs', () => {
    const operands = makeOperands(denseGeometry);
    const rule = ruleOf(topK({ keep: 0.5, minK: 1, by: 'weights' }));
    const rows = operands.w.dataSync();
    const size = [0, 1, 2, 3, 4, 5].map((i) => Math.hypot(...rows.subarray(6 * i, 6 * i + 6)));
    const x = tf.mul(operands.x, tf.tensor1d(size.map((v) => 1 / v ** 2)));
    for (const given of [operands.x, x]) {
      const { plan } = runRule(rule, { ...operands, x: given }, openScope(clockAt(0), 0));
      expect(Int32Array.from(selectionIn(plan).indices).sort()).toEqual(chooseTop(size, 3).indices);
    }
    const pairs = ruleOf(topK({ keep: 0.5, minK: 1 }));
    const { plan } = runRule(pairs, { ...operands, x }, openScope(clockAt(0), 0));
    expect(Int32Array.from(selectionIn(plan).indices).sort()).not.toEqual(chooseTop(size, 3).indices);
  });

  it('uniform is chosen on the host', () => {
    const operands = makeOperands(denseGeometry);
    const { plan } = runRule(ruleOf(uniform({ keep: 0.5, minK: 1 })), operands, openScope(clockAt(2), 1));
    const draws = stream(1, 'step', 2, 'rank', 0, 'uniform', '0/0', 'forward');
    expect((plan as { selection: Selection }).selection).toEqual(chooseUniform(6, 3, draws));
  });

  it('weighs with roots, not squares: norms of 10¹⁵ are no overflow', () => {
    const operands = makeOperands(denseGeometry);
    const large: Operands = {
      ...operands,
      x: tf.mul(operands.x, 1e15),
      w: tf.variable(tf.mul(operands.w, 1e15)),
    };
    for (const make of [topK, columnRow, winnerTakeAll]) {
      const chosen = ({ w, x }: Operands) =>
        runRule(
          ruleOf(make({ keep: 0.5, minK: 1, mode: 'blackBox' })),
          { ...operands, w, x },
          openScope(clockAt(0), 1),
        );
      const [here, there] = [chosen(operands), chosen(large)];
      expect(selectionIn(there.plan).indices).toEqual(selectionIn(here.plan).indices);
      expect(there.forward.every(Number.isFinite)).toBe(true);
    }
  });
});

describe('what dW of the step is zero outside of', () => {
  const slicesOf = (method: Method, calls: number) => {
    const operands = makeOperands(denseGeometry);
    const rule = ruleOf(method);
    const site = makeSite(operands);
    const scope = openScope(clockAt(0), 0);
    return Array.from({ length: calls }, (_, use) => {
      tf.tidy(() => {
        scope.plans.set(site, rule.plan?.(makeCall(site, scope, use), operands.x, operands.w));
      });
      return sampledSlices(scope.plans.get(site));
    });
  };

  it.each(ON_DEVICE)('%s says its indices, as a tensor that outlives the product', (_name, make) => {
    const operands = makeOperands(denseGeometry);
    const scope = openScope(clockAt(0), 1);
    const { plan, weightGrad } = runRule(ruleOf(make({ keep: 0.5, minK: 1 })), operands, scope);
    const slices = sampledSlices(plan);
    expect(slices?.axis).toBe(0);
    const rows = Array.from({ length: 6 }, (_, i) => weightGrad.subarray(6 * i, 6 * i + 6).some((v) => v !== 0));
    const filled = rows.flatMap((some, i) => (some ? [i] : []));
    expect(filled.length).toBeLessThan(6);
    expect(filled).toEqual([...new Set((slices?.indices as tf.Tensor1D).dataSync())].sort());
    scope.end();
  });

  it('is a tensor of each call', () => {
    for (const slices of slicesOf(topK({ keep: 0.5, minK: 1 }), 2)) expect(slices?.indices).toBeInstanceOf(tf.Tensor);
    expect(slicesOf(uniform({ keep: 0.5, minK: 1 }), 2)[1]?.indices).toBeInstanceOf(Int32Array);
  });
});

describe('what cannot be sampled, on the device', () => {
  const bad = (at: number) =>
    tf.tensor2d(
      Float32Array.from({ length: 36 }, (_, i) => (i === at ? Number.NaN : 1)),
      [6, 6],
    );

  it.each(ON_DEVICE)('%s does not hide a NaN, wherever it is', (_name, make) => {
    for (const at of [0, 14, 35]) {
      for (const mode of ['through', 'blackBox'] as const) {
        const operands = { ...makeOperands(denseGeometry), x: bad(at) };
        const { forward } = runRule(ruleOf(make({ keep: 0.5, minK: 1, mode })), operands, openScope(clockAt(0), 0));
        expect(forward.some(Number.isNaN), `${mode}, element ${at}`).toBe(true);
      }
      const operands = { ...makeOperands(denseGeometry), dy: bad(at) };
      const backward = runRule(
        ruleOf(make({ keep: 0.5, minK: 1, mode: 'backward' })),
        operands,
        openScope(clockAt(0), 0),
      );
      expect(backward.inputGrad.some(Number.isNaN)).toBe(true);
      expect(backward.weightGrad.some(Number.isNaN)).toBe(true);
    }
  });

  it.each(ON_DEVICE)('%s gives zero for an operand that is zero throughout', (_name, make) => {
    const operands = { ...makeOperands(denseGeometry), x: tf.zeros([6, 6]) };
    const values = runRule(ruleOf(make({ keep: 0.5, minK: 1 })), operands, openScope(clockAt(0), 0));
    expect(values.forward).toEqual(new Float32Array(36));
    expect(values.weightGrad).toEqual(new Float32Array(36));
    expect(values.inputGrad.every(Number.isFinite)).toBe(true);
    const still = { ...makeOperands(denseGeometry), dy: tf.zeros([6, 6]) };
    const backward = runRule(ruleOf(make({ keep: 0.5, minK: 1, mode: 'backward' })), still, openScope(clockAt(0), 0));
    expect(backward.inputGrad).toEqual(new Float32Array(36));
    expect(backward.weightGrad).toEqual(new Float32Array(36));
  });
});

describe('unbiased on the device', () => {
  beforeEach(() => expect(tf.getBackend()).toBe('far'));

  it.each([
    ['columnRow', columnRow],
    ['winnerTakeAll', winnerTakeAll],
  ] as const)('%s in every product that it samples, dense and convolution: z-scores over 150 draws', (_name, make) => {
    expectUnbiased(allScores(make));
  });

  it('fails the same check without its scales', () => {
    const unscaled = (options: SamplingOptions) =>
      samplingMethod(
        {
          name: 'unscaled',
          source: '',
          unbiased: false,
          by: 'pairs',
          choose: () => {
            throw new Error('The host chooses.');
          },
          device: (weights, k, random) => {
            const { size, indices } = chooseDrawsOnDevice(weights, k, random);
            return { size, indices };
          },
        },
        options,
      );
    expect(() => expectUnbiased(allScores(unscaled, 20))).toThrow(/z-scores/);
  });
});
