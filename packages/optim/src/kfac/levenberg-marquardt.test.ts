import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { attach, type Call, type Method, type Probe, type Step, train, type TrainOptions } from '@frugal/core';
import { describeEngines, expectNoLeak, toyImages, toyModel, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { sgd } from '../sgd.js';
import { backward, denseSolve, type Examples, lossOf, secondMoment } from '../testing/kfac-reference.js';
import { layersIn, normals, numbersOf, runSteps, setLayers, tanhNet } from '../testing/kfac-runs.js';
import { inner, plus, product, type Rows, rowsOf } from '../testing/matrices.js';
import { kfac, type KfacMethod, type KfacOptions, levenbergMarquardt } from './index.js';
import { adapted } from './levenberg-marquardt.js';

test('γ by hand', () => {
  const rules = levenbergMarquardt({ every: 2, omega: 0.9, min: 0.01, max: 1 });
  // ρ = 0.8, 0.5, 0.1, −1; then a model that promises nothing good; then the ends.
  expect(adapted(0.1, -0.8, -1, rules)).toBeCloseTo(0.081, 12);
  expect(adapted(0.1, -0.5, -1, rules)).toBe(0.1);
  expect(adapted(0.1, -0.1, -1, rules)).toBeCloseTo(0.1 / 0.81, 12);
  expect(adapted(0.1, 1, -1, rules)).toBeCloseTo(0.1 / 0.81, 12);
  expect(adapted(0.1, 1, 1, rules)).toBeCloseTo(0.1 / 0.81, 12);
  expect(adapted(0.0101, -1, -1, rules)).toBe(0.01);
  expect(adapted(0.99, 1, -1, rules)).toBe(1);
});

const base: KfacOptions = { factorEvery: 1, inverseEvery: 1, klClip: false };

/** M(δ) = ∇ᵀδ + ½·δᵀ(A ⊗ G + γ·I)δ over layers, in double precision. */
function modelOf(deltas: Rows[], gradients: Rows[], pairs: { a: Rows; g: Rows }[], gamma: number): number {
  return deltas.reduce((sum, delta, i) => {
    const { a, g } = pairs[i]!;
    const bent = inner(delta, product(product(a, delta), g)) + gamma * inner(delta, delta);
    return sum + inner(gradients[i]!, delta) + 0.5 * bent;
  }, 0);
}

await describeEngines('levenbergMarquardt', () => {
  /** One step on least squares whose G is exactly the curvature of the loss: W = 0, targets ±1 of one output. */
  async function quadratic(rate: number, initial: number): Promise<{ gamma: number; ratio: number }> {
    const x = normals(3, 16, 3);
    const y = x.map((_, i) => [(i % 2 === 0 ? 1 : -1) * Math.SQRT1_2]);
    const zero = [[0], [0], [0], [0]];
    const [{ a, g, gradient }] = backward([zero], { x, y }, 'meanSquaredError') as [ReturnType<typeof backward>[0]];
    const pair = { a: secondMoment(a), g: secondMoment(g) };
    expect(pair.g[0]![0]).toBeCloseTo(2, 10);
    const delta = denseSolve(gradient, pair, initial).map((row) => row.map((v) => -rate * v));
    const change = lossOf([delta], { x, y }, 'meanSquaredError') - lossOf([zero], { x, y }, 'meanSquaredError');
    // The loss is a quadratic with this very curvature: without γ, ρ = 1.
    expect(change).toBeCloseTo(modelOf([delta], [gradient], [pair], 0), 10);
    const ratio = change / modelOf([delta], [gradient], [pair], initial);
    const model = tanhNet([3, 1]);
    setLayers(model, [zero]);
    let gamma = Number.NaN;
    const damping = levenbergMarquardt({ initial, every: 1, omega: 0.8 });
    await runSteps(model, kfac({ ...base, damping }), [{ x, y }], { rate: () => rate }, (_, state) => {
      gamma = numbersOf(state, 'kfac/damping')[0]!;
    });
    return { gamma, ratio };
  }

  test('where the model is exact, γ shrinks by ω^T', async () => {
    const { gamma, ratio } = await quadratic(1, 1e-3);
    expect(ratio).toBeCloseTo(1, 2);
    expect(gamma).toBeCloseTo(0.8e-3, 8);
  });

  test('a step that is too long raises it', async () => {
    const { gamma, ratio } = await quadratic(3, 1e-3);
    expect(ratio).toBeGreaterThan(0.75);
    expect(gamma).toBeCloseTo(1e-3 / 0.8, 8);
  });

  test('γ is part of the model: a step that only it finds too long', async () => {
    const { gamma, ratio } = await quadratic(2.5, 5);
    // The loss falls, by less than twice what the model without γ says; with γ, M(δ) > 0.
    expect(ratio).toBeLessThan(0);
    expect(gamma).toBeCloseTo(5 / 0.8, 5);
  });

  test('ρ on a network, over steps, is that of double precision; with momentum of the chain in δ', async () => {
    const model = tanhNet([4, 5, 3]);
    const batch = (seed: number): Examples => ({ x: normals(seed, 10, 4), y: normals(seed + 50, 10, 3) });
    const batches = Array.from({ length: 12 }, (_, i) => batch(i));
    const rules = levenbergMarquardt({ initial: 0.05, every: 2, omega: 0.8 });
    const path: Rows[][] = [layersIn(model)];
    const [gammas, expected] = [[0.05], [0.05]];
    // Rates that are fit, and some that are far too long.
    const rate = (step: number): number => (step % 4 === 3 ? 4 : 0.3);
    await runSteps(model, kfac({ ...base, damping: rules }), batches, { rate }, (step, state) => {
      path.push(layersIn(model));
      gammas.push(numbersOf(state, 'kfac/damping')[0]!);
      let now = gammas[step]!;
      if ((step + 1) % 2 === 0) {
        const [from, to] = [path[step]!, path[step + 1]!];
        const deltas = to.map((w, i) => plus(w, from[i]!, -1));
        const gradients = backward(from, batches[step]!, 'meanSquaredError').map(({ gradient }) => gradient);
        const pairs = from.map((w, i) => ({
          a: rowsOf(numbersOf(state, `kfac/A/dense${i}/kernel`), w.length),
          g: rowsOf(numbersOf(state, `kfac/G/dense${i}/kernel`), w[0]!.length),
        }));
        const change =
          lossOf(to, batches[step]!, 'meanSquaredError') - lossOf(from, batches[step]!, 'meanSquaredError');
        now = adapted(now, change, modelOf(deltas, gradients, pairs, now), rules);
      }
      expected.push(now);
    });
    for (const [i, gamma] of gammas.entries()) expect(gamma / expected[i]!).toBeCloseTo(1, 5);
    const ups = gammas.filter((gamma, i) => i > 0 && gamma > gammas[i - 1]!).length;
    const downs = gammas.filter((gamma, i) => i > 0 && gamma < gammas[i - 1]!).length;
    expect([ups > 0, downs > 0, ups + downs < 12]).toEqual([true, true, true]);
  });

  test('γ is the one that the next step takes, and is reported', async () => {
    const seen: number[] = [];
    const method = kfac({ ...base, damping: levenbergMarquardt({ initial: 0.5, every: 1, omega: 0.5 }) });
    const batches = [1, 2, 3].map((seed) => ({ x: normals(seed, 8, 3), y: normals(seed + 9, 8, 2) }));
    const options = { rate: () => 0.1 };
    await runSteps(tanhNet([3, 2]), method, batches, options, (_step, state, { chain, attachment }) => {
      // A number of the host, which no step reads from the engine.
      expect(state.get('kfac/damping')).toBeInstanceOf(Float64Array);
      seen.push(chain.hyperparameters(attachment.scope)['damping']!);
    });
    expect(seen).toEqual([0.25, 0.125, 0.0625]);
  });

  /** Each output of a product, by a draw of the step and the call, doubled or left out. */
  const masked = ({ scope, key }: Call, y: tf.Tensor): tf.Tensor => {
    const random = scope.random('halves', key);
    return tf.mul(y, tf.tensor1d(Float32Array.from({ length: y.shape.at(-1)! }, () => (random.next() < 0.5 ? 0 : 2))));
  };

  /** Half of the outputs of each layer, forward and back: products that are random. */
  const halves: Method = {
    name: 'halves',
    source: 'toy',
    open: () => ({
      rule: {
        name: 'halves',
        bias: 'unbiased',
        forward: (call, x, w) => masked(call, call.exact.forward(x, w)),
        inputGrad: (call, dy, w, shape) => call.exact.inputGrad(masked(call, dy), w, shape),
        weightGrad: (call, x, dy, shape) => call.exact.weightGrad(x, masked(call, dy), shape),
      },
    }),
  };

  /** A network with dropout, for batches of ten. */
  const dropoutNet = (): tf.LayersModel =>
    tf.sequential({
      layers: [
        tf.layers.dense({
          units: 20,
          inputShape: [4],
          activation: 'tanh',
          kernelInitializer: tf.initializers.glorotUniform({ seed: 1 }),
        }),
        tf.layers.dropout({ rate: 0.5 }),
        tf.layers.dense({ units: 3, kernelInitializer: tf.initializers.glorotUniform({ seed: 2 }) }),
      ],
    });

  /** The method, with every loss that its probe asks for in a step noted under that step. */
  const noting = (method: KfacMethod, losses: number[][]): KfacMethod => ({
    ...method,
    open(context) {
      const opened = method.open(context);
      const noted = (step: Step): Step => ({
        ...step,
        pass: (options) => {
          const pass = step.pass(options);
          return {
            ...pass,
            loss() {
              const loss = pass.loss();
              (losses[step.scope.clock.step] ??= []).push(loss.dataSync()[0]!);
              return loss;
            },
          };
        },
      });
      const probes = opened.probes!.map(
        ({ name, before, after }): Probe => ({
          name,
          before: (step) => before?.(noted(step)),
          after: (step) => after?.(noted(step)),
        }),
      );
      return { ...opened, probes };
    },
  });

  const same = Array.from({ length: 4 }, () => ({ x: normals(1, 10, 4), y: normals(2, 10, 3) }));

  test.each([
    ['a random rule', () => tanhNet([4, 20, 3]), [halves]],
    ['dropout', dropoutNet, []],
    ['both', dropoutNet, [halves]],
  ] as const)('both losses of a step are of one sample: %s', async (_name, make, methods) => {
    const losses: number[][] = [];
    const method = noting(kfac({ ...base, damping: levenbergMarquardt({ every: 1 }) }), losses);
    await runSteps(make(), method, same, { methods: [method, ...methods], rate: () => 0, seed: 5 });
    expect(losses.map(({ length }) => length)).toEqual([2, 2, 2, 2]);
    // The weights stay, so the losses of a step are equal to the bit.
    for (const [before, after] of losses) expect(after).toBe(before);
    // Control: each step draws another sample, of the same batch at the same weights.
    expect(new Set(losses.flat()).size).toBe(4);
  });

  test('so ρ is that of the step, and not of the noise between two samples', async () => {
    const damping = levenbergMarquardt({ initial: 1, every: 1, omega: 0.5 });
    const gammas: number[] = [];
    const method = kfac({ ...base, damping });
    // So short a step changes the loss by what ∇ᵀδ says, ρ = 1; other masks would change it by far more, up or down.
    const options = { methods: [method, halves], rate: () => 1e-3, seed: 5 };
    const batches = Array.from({ length: 10 }, () => same[0]!);
    await runSteps(tanhNet([4, 20, 3]), method, batches, options, (_step, state) => {
      gammas.push(numbersOf(state, 'kfac/damping')[0]!);
    });
    expect(gammas).toEqual(Array.from({ length: 10 }, (_, i) => 0.5 ** (i + 1)));
  });

  test('no tensors are left, nor grow', async () => {
    const counts: number[] = [];
    const model = tanhNet([4, 5, 3]);
    await expectNoLeak(async () => {
      const method = kfac({ ...base, damping: levenbergMarquardt({ every: 2 }) });
      const batches = Array.from({ length: 6 }, (_, i) => ({ x: normals(i, 6, 4), y: normals(i + 9, 6, 3) }));
      await runSteps(model, method, batches, {}, () => counts.push(tf.memory().numTensors));
    });
    expect(new Set(counts.slice(1)).size).toBe(1);
  });
});

test('γ is kept in checkpoints', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'frugal-lm-'));
  const run = async (options: Partial<TrainOptions> = {}): Promise<number[]> => {
    const model = toyModel(3, { batchNorm: true, dropout: 0.2 });
    const damping = levenbergMarquardt({ initial: 0.3, every: 2, omega: 0.7 });
    await train(model, toyImages(48), {
      methods: [kfac({ damping, factorEvery: 2, inverseEvery: 3 })],
      optimizer: sgd({ learningRate: 0.1, momentum: 0.9 }),
      epochs: 2,
      batchSize: 8,
      progress: false,
      ...options,
    });
    return weightsOf(model);
  };
  const whole = await run();
  const abort = new AbortController();
  const progress: TrainOptions['progress'] = (event) => {
    if (event.kind === 'step' && event.batch === 5) abort.abort();
  };
  await expect(run({ checkpoint: { folder }, signal: abort.signal, progress })).rejects.toThrow(/stopped at step 5/);
  expect(await run({ checkpoint: { folder } })).toEqual(whole);
  await rm(folder, { recursive: true });
});

test('fit has no place for it', () => {
  const model = toyModel();
  const attached = attach(model, kfac({ klClip: false, damping: levenbergMarquardt() }));
  expect(() => attached.optimizer(sgd({ learningRate: 0.1 }))).toThrow(/^levenbergMarquardt makes further passes/);
  attached.detach();
});
