import { attach, clockAt, crossEntropy, FrugalError, type GradientLink, train } from '@frugal/core';
import { describeEngines, expectNoLeak, relativeError, toyImages, toyModel, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { sgd } from '../sgd.js';
import {
  backward,
  denseSolve,
  type Examples,
  kfacReference,
  type ReferenceOptions,
  secondMoment,
  splitSolve,
} from '../testing/kfac-reference.js';
import { layersIn, normals, runSteps, setLayers, spy, tanhNet } from '../testing/kfac-runs.js';
import { fill, inner, map, plus, product, type Rows, solve, transpose } from '../testing/matrices.js';
import { kfac, type KfacOptions } from './index.js';

const examples = (seed: number, count: number, inputs: number, outputs: number): Examples => ({
  x: normals(seed, count, inputs),
  y: normals(seed + 100, count, outputs),
});

/** Error of matrices against matrices. */
const errorOf = (actual: readonly Rows[], expected: readonly Rows[]): number =>
  relativeError(actual.flat(2), expected.flat(2));

const every = { factorEvery: 1, inverseEvery: 1, klClip: false } as const;

/** Targets whose second moment is M/2·I, so that at W = 0 G is 2/M·I, the curvature of the loss. */
function whitened(count: number, outputs: number): Rows {
  const columns = transpose(normals(9, count, outputs));
  for (const [i, column] of columns.entries()) {
    for (const before of columns.slice(0, i)) {
      const dot = column.reduce((sum, v, k) => sum + v * before[k]!, 0) / ((count * outputs) / 2);
      for (let k = 0; k < count; k++) column[k]! -= dot * before[k]!;
    }
    const norm = Math.hypot(...column);
    for (let k = 0; k < count; k++) column[k]! *= Math.sqrt((count * outputs) / 2) / norm;
  }
  return transpose(columns);
}

/** Inputs of scales from 1 to 0.1, and what least squares makes of them. */
function regression(count = 40): Examples & { readonly solution: Rows } {
  const x = map(normals(3, count, 4), (v, _, j) => v * 10 ** (-j / 3) + 0.3);
  const y = whitened(count, 2);
  const a = x.map((row) => [...row, 1]);
  return { x, y, solution: solve(product(transpose(a), a), product(transpose(a), y)) };
}

test('the reference: one step solves least squares, to rounding in double precision', () => {
  const { x, y, solution } = regression();
  const zero = [fill(5, 2, () => 0)];
  const options = { loss: 'meanSquaredError', learningRate: () => 1, damping: () => 1e-13 } as const;
  expect(errorOf(kfacReference(zero, [{ x, y }], options)[0]!, [solution])).toBeLessThan(1e-10);
});

await describeEngines('kfac', () => {
  test('one step solves least squares', async () => {
    const { x, y, solution } = regression();
    const model = tanhNet([4, 2]);
    const step = async (options: KfacOptions): Promise<number> => {
      setLayers(model, [fill(5, 2, () => 0)]);
      await runSteps(model, kfac({ ...every, damping: 1e-8, ...options }), [{ x, y }], { rate: () => 1 });
      return errorOf(layersIn(model), [solution]);
    };
    expect(await step({})).toBeLessThan(1e-4);
    // Controls: dY of a mean loss taken for g of one example (G is B² too small), or damping that is not small.
    expect(await step({ lossReduction: 'sum' })).toBeGreaterThan(1);
    expect(await step({ damping: 0.1 })).toBeGreaterThan(0.01);
  });

  /** P of one step: what the weights lost at this rate. */
  async function preconditioned(
    options: KfacOptions,
    at = 1,
  ): Promise<{ p: Rows[]; traces: ReturnType<typeof backward> }> {
    const model = tanhNet([4, 5, 3]);
    const batch = examples(1, 12, 4, 3);
    const before = layersIn(model);
    const traces = backward(before, batch, 'meanSquaredError');
    await runSteps(model, kfac({ ...every, ...options }), [batch], { rate: () => at });
    const p = layersIn(model).map((w, i) => map(plus(before[i]!, w, -1), (v) => v / at));
    return { p, traces };
  }

  test('the eigen form is the dense solve of (A ⊗ G + γI), the inverse form damps each factor', async () => {
    for (const damping of [1, 0.03, 0.003]) {
      const eigen = await preconditioned({ damping });
      const dense = eigen.traces.map(({ a, g, gradient }) =>
        denseSolve(gradient, { a: secondMoment(a), g: secondMoment(g) }, damping),
      );
      expect(errorOf(eigen.p, dense)).toBeLessThan(2e-4);
      const inverse = await preconditioned({ damping, form: 'inverse' });
      const split = eigen.traces.map(({ a, g, gradient }) =>
        splitSolve(gradient, { a: secondMoment(a), g: secondMoment(g) }, damping),
      );
      expect(errorOf(inverse.p, split)).toBeLessThan(2e-4);
      // Controls: the forms differ; A in place of G where their sizes allow it would be seen.
      expect(errorOf(inverse.p, dense)).toBeGreaterThan(0.01);
    }
  });

  test('A is of inputs and G of outputs: exchanged, they are seen', async () => {
    const model = tanhNet([3, 4]);
    const batch = examples(2, 10, 3, 4);
    const before = layersIn(model);
    const [{ a, g, gradient }] = backward(before, batch, 'meanSquaredError') as [ReturnType<typeof backward>[0]];
    await runSteps(model, kfac({ ...every, damping: 0.1 }), [batch], { rate: () => 1 });
    const p = plus(before[0]!, layersIn(model)[0]!, -1);
    const [A, G] = [secondMoment(a), secondMoment(g)];
    expect(errorOf([p], [denseSolve(gradient, { a: A, g: G }, 0.1)])).toBeLessThan(1e-4);
    expect(errorOf([p], [denseSolve(gradient, { a: G, g: A }, 0.1)])).toBeGreaterThan(0.1);
  });

  test('huge damping is SGD of rate η/γ', async () => {
    const { p, traces } = await preconditioned({ damping: 1e4 }, 1e4);
    const gradients = traces.map(({ gradient }) => gradient);
    expect(errorOf(timesDamping(p, 1e4), gradients)).toBeLessThan(2e-3);
    // Control: damping of the size of the eigenvalues is no scaling.
    const small = await preconditioned({ damping: 1 });
    expect(errorOf(small.p, gradients)).toBeGreaterThan(0.1);
  });

  const batches = Array.from({ length: 13 }, (_, step) => examples(20 + step, 10 + step, 4, 3));
  const rate = (step: number): number => 0.2 / (1 + step);

  async function trajectory(options: KfacOptions, reference: Partial<ReferenceOptions>): Promise<number> {
    const model = tanhNet([4, 5, 3]);
    const expected = kfacReference(layersIn(model), batches, {
      loss: 'meanSquaredError',
      learningRate: rate,
      damping: (step) => 0.05 / (1 + step),
      klClip: 0.01,
      ...reference,
    });
    const method = kfac({ damping: '0.05 / (1 + step)', klClip: 0.01, ...options });
    const errors: number[] = [];
    await runSteps(model, method, batches, { rate }, (step) => {
      errors.push(errorOf(layersIn(model), expected[step]!));
    });
    return Math.max(...errors);
  }

  test.each([
    ['each step', { factorEvery: 1, inverseEvery: 1 }],
    ['intervals 2 and 4, clipped', { factorEvery: 2, inverseEvery: 4 }],
    ['intervals 3 and 2, which do not fit', { factorEvery: 3, inverseEvery: 2 }],
    ['from the identity', { start: 'identity', decay: 0.7, factorEvery: 2, inverseEvery: 2 }],
    ['decay', { decay: 0.5, factorEvery: 1, inverseEvery: 3 }],
    ['inverse form', { form: 'inverse', factorEvery: 2, inverseEvery: 4 }],
    ['overlap', { overlap: true, factorEvery: 2, inverseEvery: 4 }],
    ['overlap with decompositions more often than factors', { overlap: true, factorEvery: 3, inverseEvery: 2 }],
    ['overlap, inverse form', { overlap: true, form: 'inverse', factorEvery: 2, inverseEvery: 4 }],
  ] as const)('is the reference in double precision, 13 steps: %s', async (_name, options) => {
    expect(await trajectory(options, options)).toBeLessThan(2e-4);
  });

  test('each of the options makes a difference that the reference sees', async () => {
    const base = { factorEvery: 2, inverseEvery: 4 } as const;
    const others = [
      { ...base, inverseEvery: 2 },
      { ...base, factorEvery: 4 },
      { ...base, overlap: true },
      { ...base, decay: 0.5 },
      { ...base, start: 'identity' },
      { ...base, form: 'inverse' },
      { ...base, klClip: 0.1 },
    ] as const;
    for (const other of others) expect(await trajectory(base, other)).toBeGreaterThan(2e-3);
  });

  test('intervals by schedule', async () => {
    const update = 'step < 4 ? 1 : 3';
    const seen: number[] = [];
    const method = kfac({ ...every, factorEvery: update, inverseEvery: (clock) => (clock.step < 6 ? 2 : 5) });
    await runSteps(tanhNet([4, 5, 3]), method, batches, {}, (_step, _state, run) => {
      const { updates, decompositions } = run.of(method);
      seen.push(10 * updates + decompositions);
    });
    // Factors at 0, 1, 2, 3, 6, 9, 12; decompositions at 0, 2, 4, 10.
    expect(seen).toEqual([11, 21, 32, 42, 43, 43, 53, 53, 53, 63, 64, 64, 74]);
  });

  test('crossEntropy at its logits is the reference too', async () => {
    const model = tanhNet([4, 5, 3]);
    const hot = batches.map(({ x, y }) => ({ x, y: map(y, (_, i, j) => (j === i % 3 ? 1 : 0)) }));
    const expected = kfacReference(layersIn(model), hot, {
      loss: 'crossEntropy',
      learningRate: () => 0.1,
      damping: () => 0.01,
    });
    await runSteps(model, kfac({ ...every, damping: 0.01 }), hot, { loss: crossEntropy });
    expect(errorOf(layersIn(model), expected.at(-1)!)).toBeLessThan(5e-4);
  });

  test('the clip: ν by hand with the rate of a schedule', async () => {
    const model = tanhNet([4, 5, 3]);
    const [first, second] = [layersIn(model), batches.slice(0, 2)];
    const path: Rows[][] = [first];
    const learningRate = (step: number): number => [0.5, 0.02][step]!;
    const method = kfac({ factorEvery: 1, inverseEvery: 1, damping: 0.5, klClip: 1e-3 });
    const optimizer = sgd({ learningRate: '0.5 - 0.48 * step' });
    await runSteps(model, method, second, { optimizer }, () => path.push(layersIn(model)));
    const traces = backward(first, second[0]!, 'meanSquaredError');
    const full = traces.map(({ a, g, gradient }) =>
      denseSolve(gradient, { a: secondMoment(a), g: secondMoment(g) }, 0.5),
    );
    const along = (changes: readonly Rows[]): number =>
      traces.reduce((sum, { gradient }, i) => sum + inner(gradient, changes[i]!), 0);
    const done = path[1]!.map((w, i) => plus(first[i]!, w, -1));
    // ν = √(κ / (η²·Σ P ⊙ ∇)), and the weights lost η·ν·P. The second step, at a small rate, is not clipped.
    const nu = Math.sqrt(1e-3 / (0.25 * along(full)));
    expect(nu).toBeLessThan(0.5);
    expect(along(done) / along(full)).toBeCloseTo(0.5 * nu, 4);
    const reference = kfacReference(first, second, {
      loss: 'meanSquaredError',
      learningRate,
      damping: () => 0.5,
      klClip: 1e-3,
    });
    expect(errorOf(layersIn(model), reference[1]!)).toBeLessThan(1e-4);
  });

  const images = toyImages(48);
  const settings = { damping: 0.1, factorEvery: 2, inverseEvery: 3 } as const;

  test('passes through what it does not cover, and says why', async () => {
    const model = toyModel(3, { batchNorm: true });
    (model.getLayer('hidden') as unknown as { bias: { trainable: boolean } }).bias.trainable = false;
    (model.getLayer('conv') as unknown as { kernel: { trainable: boolean } }).kernel.trainable = false;
    const seen: Record<string, number[]>[] = [];
    const look = (): GradientLink =>
      spy((gradients) => seen.push(Object.fromEntries([...gradients].map(([name, g]) => [name, [...g.dataSync()]]))));
    const method = kfac({ ...every, ...settings, klClip: 1e-9, largest: 40, skip: ({ name }) => name === 'head' });
    const optimizer = [look(), method.link, look(), sgd({ learningRate: 0.1 })];
    const run = { methods: [method], optimizer, epochs: 1, batchSize: 48, progress: false } as const;
    const { layers, passed } = (await train(model, images, run)).of(method);
    expect(layers).toEqual([{ weight: 'conv2/kernel', a: 37, g: 12 }]);
    expect(Object.fromEntries(passed.map(({ weight, reason }) => [weight, reason]))).toEqual({
      'conv/bias': 'its kernel is not trained',
      'norm/gamma': 'no product of a dense or convolution layer',
      'norm/beta': 'no product of a dense or convolution layer',
      'hidden/kernel': 'its factors [49] and [24] are larger than 40',
      'head/kernel': 'skipped',
      'head/bias': 'skipped',
    });
    const [before, after] = seen as [Record<string, number[]>, Record<string, number[]>];
    for (const { weight } of passed) expect(after[weight]).toEqual(before[weight]);
    // The clip of 1e-9 makes what is preconditioned very short.
    for (const name of ['conv2/kernel', 'conv2/bias']) {
      expect(Math.hypot(...after[name]!)).toBeLessThan(0.01 * Math.hypot(...before[name]!));
    }
  });

  test('a bias that is not trained has no row in A', async () => {
    const model = tanhNet([4, 3]);
    const before = layersIn(model)[0]!;
    (model.layers[0] as unknown as { bias: { trainable: boolean } }).bias.trainable = false;
    const batch = examples(1, 12, 4, 3);
    const [{ a, g, gradient }] = backward([before], batch, 'meanSquaredError') as [ReturnType<typeof backward>[0]];
    const method = kfac({ ...every, damping: 0.1 });
    const { layers } = await runSteps(model, method, [batch], { rate: () => 1 });
    const own = { a: secondMoment(a.map((row) => row.slice(0, 4))), g: secondMoment(g) };
    const after = layersIn(model)[0]!;
    const p = denseSolve(gradient.slice(0, 4), own, 0.1);
    expect(errorOf([plus(before.slice(0, 4), after.slice(0, 4), -1)], [p])).toBeLessThan(1e-4);
    expect(after[4]).toEqual(before[4]);
    expect(layers).toEqual([{ weight: 'dense0/kernel', a: 4, g: 3 }]);
  });

  test('fit and train make the same weights', async () => {
    const options = { ...settings, overlap: true } as const;
    const [xs, ys] = tf.tidy(() => [
      tf.tensor(
        Float32Array.from(images.inputs, (v) => (v - 100) / 60),
        [48, 8, 8, 1],
      ),
      tf.oneHot(tf.tensor1d(images.targets, 'int32'), 3),
    ]);
    const whole = { ...images, normalize: { mean: [100], std: [60] } };
    const ours = toyModel(4, { batchNorm: true });
    const optimizer = () => sgd({ learningRate: 0.1, momentum: 0.9 });
    const before = weightsOf(ours);
    await train(ours, whole, {
      methods: [kfac(options)],
      optimizer: optimizer(),
      epochs: 7,
      batchSize: 48,
      progress: false,
    });
    const fitted = toyModel(4, { batchNorm: true });
    const attached = attach(fitted, kfac(options));
    const prepared = attached.optimizer(optimizer());
    fitted.compile({ optimizer: prepared, loss: 'categoricalCrossentropy' });
    await prepared.prepare();
    await fitted.fit(xs!, ys!, { epochs: 7, batchSize: 48, shuffle: false, verbose: 0 });
    expect(relativeError(weightsOf(fitted), weightsOf(ours))).toBeLessThan(2e-3);
    expect(relativeError(weightsOf(ours), before)).toBeGreaterThan(0.05);
    attached.detach();
    tf.dispose([xs, ys]);
  });

  test('fit refuses it where nobody has prepared it', async () => {
    const model = toyModel(4);
    const attached = attach(model, kfac(settings));
    const before = weightsOf(model);
    const optimizer = attached.optimizer(sgd({ learningRate: 0.1 }));
    model.compile({ optimizer, loss: 'categoricalCrossentropy' });
    const [xs, ys] = [tf.ones([2, 8, 8, 1]), tf.eye(2, 3)];
    const run = model.fit(xs, ys, { epochs: 1, verbose: 0 });
    await expect(run).rejects.toSatisfy((error) => FrugalError.is(error, 'CONFIG'));
    await expect(run).rejects.toThrow(/^kfac must load something .* await optimizer\.prepare\(\) before fit/);
    expect(weightsOf(model)).toEqual(before);
    attached.detach();
    tf.dispose([xs, ys]);
  });

  test('makes no update where there was none: a bias without gradient stays out', async () => {
    const method = kfac({ ...every, damping: 0.1 });
    const model = tanhNet([4, 3]);
    const attached = attach(model, method);
    const link = (method.link as GradientLink).open(attached.context);
    await link.prepare?.();
    const scope = attached.begin(clockAt(0));
    const names = tf.tidy(() => {
      const xs = tf.tensor2d(normals(1, 6, 4));
      const { grads } = tf.variableGrads(() => tf.sum(model.apply(xs, { training: true }) as tf.Tensor));
      const [kernel] = attached.params;
      const updates = new Map([[kernel!.name, grads[kernel!.value.name] as tf.Tensor]]);
      return [...link.transform(updates, scope).keys()];
    });
    expect(names).toEqual(['dense0/kernel']);
    attached.detach();
  });

  test.each(['eigen', 'inverse'] as const)('no tensors are left, nor grow: %s', async (form) => {
    const model = tanhNet([4, 5, 3]);
    const counts: number[] = [];
    await expectNoLeak(async () => {
      const method = kfac({ ...every, form, factorEvery: 1, inverseEvery: 2, overlap: true, fisher: 'sampled' });
      await runSteps(model, method, batches, {}, () => counts.push(tf.memory().numTensors));
    });
    expect(new Set(counts.slice(1)).size).toBe(1);
  });

  test('two runs have the same bits, also with overlap', async () => {
    const once = async (overlap: boolean): Promise<number[]> => {
      const model = toyModel(5, { batchNorm: true, dropout: 0.1 });
      await train(model, images, {
        methods: [kfac({ ...settings, overlap })],
        optimizer: sgd({ learningRate: 0.1 }),
        epochs: 2,
        batchSize: 8,
        progress: false,
      });
      return weightsOf(model);
    };
    expect(await once(true)).toEqual(await once(true));
    expect(await once(true)).not.toEqual(await once(false));
  });

  test('learns, and reports after the run what it did', async () => {
    const model = toyModel();
    const method = kfac({ ...settings, damping: 0.03 });
    const trained = await train(model, images, {
      methods: [method],
      optimizer: sgd({ learningRate: 0.1, momentum: 0.9 }),
      epochs: 3,
      batchSize: 8,
      progress: false,
    });
    const { epochs } = trained;
    expect(epochs.at(-1)!.loss).toBeLessThan(0.7 * epochs[0]!.loss);
    const report = trained.of(method);
    const { layers, updates, decompositions, factorBytes, decompositionBytes, milliseconds, sent } = report;
    // 18 steps; per layer A and G, [10] and [4], [37] and [12], [49] and [24], [25] and [3].
    expect(layers.map(({ a, g }) => [a, g])).toEqual([
      [10, 4],
      [37, 12],
      [49, 24],
      [25, 3],
    ]);
    const sizes = [10, 4, 37, 12, 49, 24, 25, 3];
    expect([updates, decompositions]).toEqual([9, 6]);
    expect(factorBytes).toBe(2 * 4 * sizes.reduce((sum, n) => sum + n * n, 0));
    expect(decompositionBytes).toBe(4 * sizes.reduce((sum, n) => sum + n * n + n, 0));
    expect(milliseconds.decompose).toBeGreaterThan(0);
    expect(milliseconds.precondition).toBeGreaterThan(0);
    expect(sent).toEqual({ factors: 0, decompositions: 0, gradients: 0 });
  });
});

function timesDamping(matrices: readonly Rows[], damping: number): Rows[] {
  return matrices.map((m) => map(m, (v) => v * damping));
}

test('refuses to precondition what it has not seen', async () => {
  await tf.setBackend('cpu');
  const { link } = kfac(every);
  const model = toyModel();
  const run = train(model, toyImages(), {
    optimizer: [link, sgd({ learningRate: 0.1 })],
    epochs: 1,
    progress: false,
  });
  await expect(run).rejects.toThrow(/expected to have seen x and dY .* methods: \[k\]/);
});
