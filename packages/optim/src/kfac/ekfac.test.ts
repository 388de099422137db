import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { linearAlgebra, meanSquaredError, stepper } from '@frugal/core';
import {
  describeEngines,
  expectNoLeak,
  relativeError,
  toyImages,
  toyModel,
  trainFor,
  weightsOf,
} from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { sgd } from '../sgd.js';
import { normals, plainSgd, stateOf, tanhNet } from '../testing/kfac-runs.js';
import { fill, inner, kronecker, plus, product, type Rows, rowsOf, transpose } from '../testing/matrices.js';
import { ekfac, kfac, type KfacMethod, type KfacOptions } from './index.js';

const EVERY = { factorEvery: 1, inverseEvery: 100, klClip: false, damping: 0.1 } as const;

interface Batch {
  readonly xs: tf.Tensor;
  readonly ys: tf.Tensor;
}

const batchOf = (seed: number, shape: readonly number[], outputs: number): Batch => {
  const [count = 1, ...rest] = shape;
  const size = rest.reduce((a, b) => a * b, 1);
  return {
    xs: tf.tensor(normals(seed, count, size).flat(), [count, ...rest]),
    ys: tf.tensor2d(normals(seed + 1, count, outputs)),
  };
};

/** Strided convolution with bias, then dense. */
const convNet = (): tf.LayersModel =>
  tf.sequential({
    layers: [
      tf.layers.conv2d({ inputShape: [5, 4, 2], filters: 3, kernelSize: [3, 2], strides: [2, 1], activation: 'tanh' }),
      tf.layers.flatten(),
      tf.layers.dense({ units: 2 }),
    ],
  });

/** Makes steps on one batch without moving the weights, unless told; returns copies of the state, and the layers. */
async function stateAfter(
  model: tf.LayersModel,
  method: KfacMethod,
  batch: Batch,
  steps: number,
  rate: (step: number) => number = () => 0,
) {
  const run = stepper(model, { methods: [method], optimizer: plainSgd(rate), loss: meanSquaredError });
  for (let i = 0; i < steps; i++) await run.step({ xs: batch.xs, ys: batch.ys });
  const matrices = [...stateOf(run)].flatMap(([name, kept]) =>
    kept instanceof Float64Array ? [] : [[name, kept.arraySync() as Rows] as const],
  );
  const { layers } = run.of(method);
  run.dispose();
  return { state: new Map(matrices), layers };
}

/** Gradients of single examples' losses, of a weight and its bias as one matrix: by the tape of TensorFlow.js. */
function perExample(model: tf.LayersModel, { xs, ys }: Batch, layer: number): Rows[] {
  const [kernel, bias] = model.layers[layer]!.trainableWeights.map((w) => w.read() as tf.Variable);
  return Array.from({ length: xs.shape[0]! }, (_, n) =>
    tf.tidy(() => {
      const loss = (): tf.Scalar =>
        tf.mean(tf.squaredDifference(model.apply(tf.slice(xs, n, 1)) as tf.Tensor, tf.slice(ys, n, 1)));
      const { grads } = tf.variableGrads(loss, [kernel!, bias!]);
      const matrix = [...grads[kernel!.name]!.dataSync(), ...grads[bias!.name]!.dataSync()];
      return rowsOf(matrix, kernel!.shape.at(-1)!);
    }),
  );
}

/** Eigenbases of a layer, from the factors that were decomposed. */
async function basisOf(state: ReadonlyMap<string, Rows>, weight: string): Promise<{ a: Rows; g: Rows }> {
  const { symmetricEigen } = await linearAlgebra();
  const of = (side: string): Rows => {
    const factor = state.get(`kfac/decomposed${side}/${weight}`)!;
    const { vectors } = symmetricEigen({
      rows: factor.length,
      columns: factor.length,
      data: Float32Array.from(factor.flat()),
    });
    return rowsOf(vectors.data, factor.length);
  };
  return { a: of('A'), g: of('G') };
}

const turned = (gradient: Rows, { a, g }: { a: Rows; g: Rows }): Rows => product(product(transpose(a), gradient), g);
const squares = (rows: Rows): Rows => rows.map((row) => row.map((value) => value * value));
const mean = (all: readonly Rows[]): Rows =>
  all.reduce((sum, rows) => plus(sum, rows)).map((row) => row.map((value) => value / all.length));

/** The method with a state that lacks S: in its place a checkpoint has nothing, and a run what it starts from. */
const withoutMoments = (method: KfacMethod): KfacMethod => ({
  ...method,
  open(context) {
    const opened = method.open(context);
    return {
      ...opened,
      state: () => new Map([...opened.state!()].filter(([name]) => !name.startsWith('kfac/S/'))),
    };
  },
});

await describeEngines('EK-FAC', () => {
  beforeAll(async () => {
    await linearAlgebra();
  });

  test.each([
    ['dense, first', () => tanhNet([5, 4, 2]), [6, 5], 0],
    ['dense, last', () => tanhNet([5, 4, 2]), [6, 5], 1],
    ['convolution', convNet, [4, 5, 4, 2], 0],
  ] as const)(
    'S of a layer is the second moment of single gradients in its eigenbasis: %s',
    async (_name, make, shape, layer) => {
      const model = make();
      const batch = batchOf(1, shape, 2);
      const method = ekfac({ ...EVERY, decay: 0 });
      const { state, layers } = await stateAfter(model, method, batch, 2);
      const { weight } = layers[layer]!;
      const basis = await basisOf(state, weight);
      const gradients = perExample(
        model,
        batch,
        model.layers.indexOf(model.layers.filter((l) => l.trainableWeights.length > 0)[layer]!),
      );
      const expected = mean(gradients.map((gradient) => squares(turned(gradient, basis))));
      expect(relativeError(state.get(`kfac/S/${weight}`)!.flat(), expected.flat())).toBeLessThan(1e-3);
      // Control: K-FAC's products of eigenvalues are something else.
      const first = await stateAfter(model, ekfac({ ...EVERY, decay: 0 }), batch, 1);
      expect(relativeError(first.state.get(`kfac/S/${weight}`)!.flat(), expected.flat())).toBeGreaterThan(0.05);
      model.dispose();
      tf.dispose([batch.xs, batch.ys]);
    },
  );

  test('it comes nearer to the block of the Fisher matrix than K-FAC does', async () => {
    const model = tanhNet([5, 4, 2]);
    const batch = batchOf(3, [8, 5], 2);
    const method = ekfac({ ...EVERY, decay: 0 });
    const { state, layers } = await stateAfter(model, method, batch, 2);
    const { weight } = layers[0]!;
    const { a, g } = await basisOf(state, weight);
    const vectors = perExample(model, batch, 0).map((gradient) => [gradient.flat()]);
    const block = mean(vectors.map((row) => product(transpose(row), row)));
    const basis = kronecker(a, g);
    const moments = state.get(`kfac/S/${weight}`)!.flat();
    const corrected = product(
      product(
        basis,
        fill(moments.length, moments.length, (i, j) => (i === j ? moments[i]! : 0)),
      ),
      transpose(basis),
    );
    const plain = kronecker(state.get(`kfac/decomposedA/${weight}`)!, state.get(`kfac/decomposedG/${weight}`)!);
    const distance = (other: Rows): number => Math.sqrt(inner(plus(block, other, -1), plus(block, other, -1)));
    expect(distance(corrected)).toBeLessThan(0.95 * distance(plain));
    model.dispose();
    tf.dispose([batch.xs, batch.ys]);
  });

  test('of a batch of one it is K-FAC; of more it is not', async () => {
    const weightsAfter = async (make: (options: KfacOptions) => KfacMethod, count: number): Promise<number[]> => {
      const model = tanhNet([5, 4, 2]);
      const batch = batchOf(5, [count, 5], 2);
      // The weights move in the second step only, so its bases and gradients are those of the first.
      await stateAfter(model, make(EVERY), batch, 2, (step) => (step === 1 ? 0.1 : 0));
      const weights = model.getWeights().flatMap((w) => [...w.dataSync()]);
      model.dispose();
      tf.dispose([batch.xs, batch.ys]);
      return weights;
    };
    expect(relativeError(await weightsAfter(ekfac, 1), await weightsAfter(kfac, 1))).toBeLessThan(1e-4);
    expect(relativeError(await weightsAfter(ekfac, 6), await weightsAfter(kfac, 6))).toBeGreaterThan(1e-3);
  });

  test('examples: of the first ones only; tensors do not pile up', async () => {
    const model = convNet();
    const batch = batchOf(7, [6, 5, 4, 2], 2);
    const run = async (examples: number): Promise<number[]> => {
      const { state } = await stateAfter(model, ekfac({ ...EVERY, decay: 0, examples }), batch, 2);
      return [...state].filter(([name]) => name.startsWith('kfac/S/')).flatMap(([, rows]) => rows.flat());
    };
    expect(relativeError(await run(6), await run(99))).toBe(0);
    expect(relativeError(await run(3), await run(6))).toBeGreaterThan(1e-2);
    const method = ekfac({ ...EVERY, inverseEvery: 2 });
    const { step, dispose } = stepper(model, {
      methods: [method],
      optimizer: plainSgd(() => 0.01),
      loss: meanSquaredError,
    });
    // Bases are made in the first step.
    for (let i = 0; i < 2; i++) await step({ xs: batch.xs, ys: batch.ys });
    await expectNoLeak(() => step({ xs: batch.xs, ys: batch.ys }));
    dispose();
    model.dispose();
    tf.dispose([batch.xs, batch.ys]);
  });

  test.each([1, 2, 3, 4])('a run that was stopped after step %i resumes to the same bits', async (at) => {
    const folder = mkdtempSync(join(tmpdir(), 'frugal-ekfac-'));
    const go = async (stopAfter: number, to?: string, spoil = false): Promise<number[]> => {
      const model = toyModel();
      const method = ekfac({ ...EVERY, inverseEvery: 3, examples: 8 });
      await trainFor(stopAfter, model, toyImages(64), {
        methods: [spoil ? withoutMoments(method) : method],
        optimizer: sgd({ learningRate: 0.05 }),
        epochs: 2,
        batchSize: 16,
        ...(to !== undefined && { checkpoint: { folder: to } }),
      });
      const weights = weightsOf(model);
      model.dispose();
      return weights;
    };
    try {
      const [whole, kept, spoilt] = [await go(Infinity), join(folder, 'kept'), join(folder, 'spoilt')];
      await go(at, kept);
      expect(await go(Infinity, kept)).toEqual(whole);
      // Control: without S it goes elsewhere, unless the next step decomposes and S begins anew.
      await go(at, spoilt, true);
      const without = await go(Infinity, spoilt, true);
      if (at % 3 !== 0) expect(without).not.toEqual(whole);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('a bias that is not trained has no row in S', async () => {
    const model = tanhNet([5, 4, 2]);
    (model.layers[0] as unknown as { bias: { trainable: boolean } }).bias.trainable = false;
    const batch = batchOf(11, [6, 5], 2);
    const { state } = await stateAfter(model, ekfac({ ...EVERY, decay: 0 }), batch, 3, () => 0.1);
    const rows = [...state].filter(([name]) => name.startsWith('kfac/S/')).map(([, moments]) => moments.length);
    // Five inputs without, four with.
    expect(rows).toEqual([5, 5]);
    model.dispose();
    tf.dispose([batch.xs, batch.ys]);
  });
});

describe('options', () => {
  test.each(['form', 'overlap', 'distribution'])('%s is refused', (name) => {
    expect(() => ekfac({ klClip: false, [name]: 'eigen' } as never)).toThrow(
      new RegExp(`ekfac: expected no option ${name}`),
    );
  });
  test('examples is a count', () => {
    expect(() => ekfac({ klClip: false, examples: 0 })).toThrow(/ekfac: expected examples/);
  });
});
