import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { stream } from '../rng.js';
import { describeEngines, expectNoLeak, relativeError } from '../testing/engines.js';
import { batchNorm } from './batch-norm.js';
import { biasActivation } from './bias-activation.js';
import { softmaxCrossEntropy } from './cross-entropy.js';
import { dropout } from './dropout.js';
import { putSlices, selectionOf, squaredNorms, takeSlices } from './slices.js';
import { adamUpdate, movingAverage, sgdUpdate } from './update.js';

const normals = (n: number, seed: number): Float32Array =>
  Float32Array.from({ length: n }, stream(seed, 'kernels').normal);
const tensor = (shape: number[], seed: number): tf.Tensor =>
  tf.tensor(
    normals(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    shape,
  );

/** Central differences of a scalar function of plain float64 arrays. */
function numericGradient(f: (x: Float64Array) => number, at: ArrayLike<number>): Float64Array {
  const x = Float64Array.from(at);
  return x.map((value, i) => {
    const h = 1e-5;
    x[i] = value + h;
    const up = f(x);
    x[i] = value - h;
    const down = f(x);
    x[i] = value;
    return (up - down) / (2 * h);
  });
}

/** Batch normalisation of [rows, channels] in float64, contracted with `weights` to a scalar. */
function batchNormReference(
  x: Float64Array,
  gamma: Float64Array,
  beta: Float64Array,
  weights: ArrayLike<number>,
  relu: boolean,
): number {
  const channels = gamma.length;
  const rows = x.length / channels;
  let result = 0;
  for (let c = 0; c < channels; c++) {
    const column = Array.from({ length: rows }, (_, r) => x[r * channels + c]!);
    const mean = column.reduce((a, b) => a + b) / rows;
    const variance = column.reduce((a, b) => a + (b - mean) ** 2, 0) / rows;
    column.forEach((value, r) => {
      const y = ((value - mean) / Math.sqrt(variance + 1e-3)) * gamma[c]! + beta[c]!;
      result += (relu ? Math.max(0, y) : y) * (weights[r * channels + c] as number);
    });
  }
  return result;
}

await describeEngines('kernels', () => {
  it('bias and relu: y and both gradients by hand', () => {
    tf.tidy(() => {
      const x = tf.tensor2d([1, -2, 3, 4], [2, 2]);
      const bias = tf.tensor1d([1, 1]);
      expect([...biasActivation(x, bias, 'relu').dataSync()]).toEqual([2, 0, 4, 5]);
      expect([...biasActivation(x, bias, 'linear').dataSync()]).toEqual([2, -1, 4, 5]);
      const [dx, db] = tf.grads((a, b) => biasActivation(a!, b!, 'relu'))([x, bias], tf.tensor2d([1, 2, 3, 4], [2, 2]));
      expect([...dx!.dataSync()]).toEqual([1, 0, 3, 4]);
      expect([...db!.dataSync()]).toEqual([4, 4]);
      const [, dl] = tf.grads((a, b) => biasActivation(a!, b!, 'linear'))([x, bias], tf.tensor2d([1, 2, 3, 4], [2, 2]));
      expect([...dl!.dataSync()]).toEqual([4, 6]);
    });
  });

  it.each(['linear', 'relu'] as const)(
    'batch normalisation (%s): gradients equal central differences in float64',
    (activation) => {
      const [rows, channels] = [12, 3];
      const weights = normals(rows * channels, 9);
      const x = normals(rows * channels, 7);
      const gamma = Float32Array.of(0.5, 1.5, -1);
      const beta = Float32Array.of(0.3, -0.2, 0.1);
      const f = (which: 0 | 1 | 2) => (v: Float64Array) => {
        const parts = [x, gamma, beta].map((p, i) => (i === which ? v : Float64Array.from(p)));
        return batchNormReference(parts[0]!, parts[1]!, parts[2]!, weights, activation === 'relu');
      };
      tf.tidy(() => {
        const grads = tf.grads((a, g, b) =>
          tf.sum(
            tf.mul(batchNorm(a!, g!, b!, { epsilon: 1e-3, activation }).y, tf.tensor2d(weights, [rows, channels])),
          ),
        )([tf.tensor2d(x, [rows, channels]), tf.tensor1d(gamma), tf.tensor1d(beta)]);
        ([x, gamma, beta] as const).forEach((at, i) => {
          // float32 against float64 with differences of 1e-5.
          expect(relativeError(grads[i]!.dataSync(), numericGradient(f(i as 0 | 1 | 2), at))).toBeLessThan(2e-4);
        });
      });
    },
  );

  it('batch normalisation with a residual adds it before relu and passes its gradient through', () => {
    tf.tidy(() => {
      const x = tensor([8, 2], 1);
      const r = tensor([8, 2], 2);
      const gamma = tf.ones([2]);
      const beta = tf.zeros([2]);
      const fused = (a: tf.Tensor, b: tf.Tensor): tf.Tensor =>
        batchNorm(a, gamma, beta, { epsilon: 1e-3, activation: 'relu', residual: b }).y;
      const split = (a: tf.Tensor, b: tf.Tensor): tf.Tensor =>
        tf.relu(tf.add(batchNorm(a, gamma, beta, { epsilon: 1e-3, activation: 'linear' }).y, b));
      expect(relativeError(fused(x, r).dataSync(), split(x, r).dataSync())).toBeLessThan(1e-6);
      const [dx, dr] = tf.grads((a, b) => fused(a!, b!))([x, r], tensor([8, 2], 3));
      const [ex, er] = tf.grads((a, b) => split(a!, b!))([x, r], tensor([8, 2], 3));
      expect(relativeError(dx!.dataSync(), ex!.dataSync())).toBeLessThan(1e-5);
      expect(relativeError(dr!.dataSync(), er!.dataSync())).toBeLessThan(1e-6);
    });
  });

  it('cross-entropy: loss, gradient and correct predictions by hand, also for large logits', () => {
    tf.tidy(() => {
      const logits = tf.tensor2d([0, Math.log(3), 1000, 0], [2, 2]);
      const labels = tf.tensor2d([0, 1, 0, 1], [2, 2]);
      const { loss, correct } = softmaxCrossEntropy(logits, labels);
      // Row 1: softmax [1/4, 3/4], loss ln(4/3). Row 2: softmax [1, 0], loss 1000.
      expect(loss.dataSync()[0]).toBeCloseTo((Math.log(4 / 3) + 1000) / 2, 3);
      expect(correct.dataSync()[0]).toBe(1);
      const gradient = tf
        .grad((x) => softmaxCrossEntropy(x, labels).loss)(logits)
        .dataSync();
      [0.125, -0.125, 0.5, -0.5].forEach((v, i) => expect(gradient[i]).toBeCloseTo(v, 6));
    });
  });

  it.each([
    [[4, 6], 0],
    [[4, 6], 1],
    [[2, 3, 4, 6], 3],
    [[3, 3, 6, 5], 2],
    [[6, 2, 2, 3], 0],
    [[3, 3, 5, 6], 3],
  ])('slices of %o along axis %i: take, put and norms are what gather and sums give', (shape, axis) => {
    tf.tidy(() => {
      const x = tensor(shape, 11);
      const indices = Int32Array.of(0, 2, 3);
      const n = shape[axis]!;
      const scales = Float32Array.of(1, 2, -0.5);
      const factor = tf.tensor(
        scales,
        shape.map((_, i) => (i === axis ? 3 : 1)),
      );
      const expected = tf.mul(tf.gather(x, [0, 2, 3].slice(0, n), axis), factor);
      const taken = takeSlices(x, axis, { indices, scales });
      expect(relativeError(taken.dataSync(), expected.dataSync())).toBe(0);
      const back = putSlices(taken, axis, n, { indices });
      expect(relativeError(takeSlices(back, axis, { indices }).dataSync(), taken.dataSync())).toBe(0);
      expect(tf.sum(tf.abs(takeSlices(back, axis, { indices: Int32Array.of(1) }))).dataSync()[0]).toBe(0);
      expect(back.shape).toEqual(shape);
      const others = shape.map((_, i) => i).filter((i) => i !== axis);
      expect(relativeError(squaredNorms(x, axis).dataSync(), tf.sum(tf.square(x), others).dataSync())).toBeLessThan(
        1e-6,
      );
    });
  });

  it.each([
    [[4, 6], 0],
    [[4, 6], 1],
    [[2, 3, 4, 6], 3],
    [[3, 3, 6, 5], 2],
    [[6, 2, 2, 3], 0],
  ])('slices of %o along axis %i by an index tensor are those by an array', (shape, axis) => {
    tf.tidy(() => {
      const x = tensor(shape, 11);
      const n = shape[axis]!;
      const host = selectionOf(Int32Array.of(0, 2, 3), Float32Array.of(1, 2, -0.5));
      expect(host.size).toBe(3);
      const onEngine = {
        size: 3,
        indices: tf.tensor1d(host.indices, 'int32'),
        scales: tf.tensor1d(host.scales!),
      };
      const taken = takeSlices(x, axis, host);
      const other = takeSlices(x, axis, onEngine);
      expect(other.shape).toEqual(taken.shape);
      expect(relativeError(other.dataSync(), taken.dataSync())).toBe(0);
      const back = putSlices(taken, axis, n, host);
      const again = putSlices(taken, axis, n, onEngine);
      expect(again.shape).toEqual(shape);
      expect(relativeError(again.dataSync(), back.dataSync())).toBe(0);
    });
  });

  it('slices take factors that are on the engine where indices are not', () => {
    tf.tidy(() => {
      const x = tensor([4, 6], 11);
      const [indices, factors] = [Int32Array.of(0, 2, 3), Float32Array.of(1, 2, -0.5)];
      const mixed = { indices, scales: tf.tensor1d(factors) };
      const taken = takeSlices(x, 1, { indices, scales: factors });
      expect(relativeError(takeSlices(x, 1, mixed).dataSync(), taken.dataSync())).toBe(0);
      const back = putSlices(taken, 1, 6, { indices, scales: factors });
      expect(relativeError(putSlices(taken, 1, 6, mixed).dataSync(), back.dataSync())).toBe(0);
      // The other way round.
      const other = { indices: tf.tensor1d(indices, 'int32'), scales: factors };
      expect(relativeError(takeSlices(x, 1, other).dataSync(), taken.dataSync())).toBe(0);
    });
  });

  it('slices of one index, where a tensor repeats it, add up; an array must ascend', () => {
    tf.tidy(() => {
      const x = tf.tensor2d([1, 10, 100, 2, 20, 200], [2, 3]);
      const twice = { size: 3, indices: tf.tensor1d([3, 1, 3], 'int32'), scales: tf.tensor1d([1, 1, 0.5]) };
      expect([...putSlices(x, 1, 4, twice).dataSync()]).toEqual([0, 10, 0, 51, 0, 20, 0, 102]);
      const rows = { size: 2, indices: tf.tensor1d([2, 2], 'int32') };
      expect([...putSlices(x, 0, 3, rows).dataSync()]).toEqual([0, 0, 0, 0, 0, 0, 3, 30, 300]);
      expect([...takeSlices(x, 1, { indices: tf.tensor1d([2, 0, 2], 'int32') }).dataSync()]).toEqual([
        100, 1, 100, 200, 2, 200,
      ]);
      for (const wrong of [
        [2, 1, 0],
        [0, 1, 1],
      ]) {
        expect(() => putSlices(x, 1, 4, selectionOf(Int32Array.from(wrong)))).toThrow(/expected ascending indices/);
      }
    });
  });

  it('dropout keeps about 1 − rate, scaled, the same for a seed, with the same mask in the gradient', () => {
    tf.tidy(() => {
      const x = tf.ones([100, 100]);
      const y = dropout(x, 0.3, 12345).dataSync();
      const kept = y.filter((v) => v !== 0);
      // Binomial(10000, 0.7): standard deviation 46.
      expect(Math.abs(kept.length - 7000)).toBeLessThan(230);
      expect(kept.every((v) => v === Math.fround(1 / 0.7))).toBe(true);
      expect(dropout(x, 0.3, 12345).dataSync()).toEqual(y);
      expect(dropout(x, 0.3, 12346).dataSync()).not.toEqual(y);
      expect(
        tf
          .grad((v) => dropout(v, 0.3, 12345))(x)
          .dataSync(),
      ).toEqual(y);
    });
  });

  it('updates weights by SGD: momentum 1, 1.9, 2.71; Nesterov; decoupled decay', () => {
    const hyper = { learningRate: 0.1, momentum: 0.9, nesterov: false, weightDecay: 0 };
    const g = tf.ones([3]);
    const w = tf.variable(tf.zeros([3]));
    const v = tf.variable(tf.zeros([3]));
    for (const total of [1, 2.9, 5.61]) {
      sgdUpdate(w, g, v, hyper);
      expect(w.dataSync()[2]).toBeCloseTo(-0.1 * total, 6);
    }
    // v = 0.9·2.71 + 1 = 3.439; d = 1 + 0.9·3.439 = 4.0951
    sgdUpdate(w, g, v, { ...hyper, nesterov: true });
    expect(w.dataSync()[0]).toBeCloseTo(-0.561 - 0.40951, 6);
    const plain = tf.variable(tf.fill([2], 2));
    sgdUpdate(plain, tf.ones([2]), undefined, { ...hyper, weightDecay: 0.5 });
    // 2 − 0.1·1 − 0.1·0.5·2
    expect(plain.dataSync()[1]).toBeCloseTo(1.8, 6);
    movingAverage(plain, tf.zeros([2]), 0.75);
    expect(plain.dataSync()[0]).toBeCloseTo(1.35, 6);
    // Coupled: h = 1 + 0.5·1.35 = 1.675
    sgdUpdate(plain, tf.ones([2]), undefined, { ...hyper, coupledDecay: 0.5 });
    expect(plain.dataSync()[0]).toBeCloseTo(1.35 - 0.1675, 6);
    tf.dispose([g, w, v, plain]);
  });

  it.each([false, true])('decays a weight coupled as if λ·w were in the gradient (Nesterov: %s)', (nesterov) => {
    const numbers = { learningRate: 0.1, momentum: 0.9, nesterov, weightDecay: 0.02 };
    const [w, by, v, vBy] = [1, 1, 2, 2].map((seed) => tf.tidy(() => tf.variable(tensor([70], seed)))) as [
      tf.Variable,
      tf.Variable,
      tf.Variable,
      tf.Variable,
    ];
    for (let step = 0; step < 5; step++) {
      tf.tidy(() => {
        const g = tensor([70], 10 + step);
        sgdUpdate(by, tf.add(g, tf.mul(by, 0.3)), vBy, numbers);
        sgdUpdate(w, g, v, { ...numbers, coupledDecay: 0.3 });
      });
    }
    // Five roundings of float32.
    expect(relativeError(w.dataSync(), by.dataSync())).toBeLessThan(2e-6);
    expect(relativeError(v.dataSync(), vBy.dataSync())).toBeLessThan(2e-6);
    tf.dispose([w, by, v, vBy]);
  });

  it('updates a weight without touching a tensor that shares its memory, nor an array a user holds', () => {
    tf.tidy(() => {
      const w = tf.variable(tf.fill([2000], 1));
      const alias = w.clone();
      const held = w.dataSync();
      sgdUpdate(w, tf.ones([2000]), undefined, { learningRate: 0.5, momentum: 0, nesterov: false, weightDecay: 0 });
      expect(alias.dataSync()[0]).toBe(1);
      expect(held[1999]).toBe(1);
      expect(w.dataSync()[1999]).toBe(0.5);
      w.dispose();
    });
  });

  it('updates weights by Adam as a float64 reference does over 20 steps', () => {
    const [lr, b1, b2, epsilon, decay] = [0.01, 0.9, 0.99, 1e-8, 0.1];
    const w = tf.variable(tf.tensor1d([1, -1]));
    const m = tf.variable(tf.zeros([2]));
    const v = tf.variable(tf.zeros([2]));
    const ref = { w: [1, -1], m: [0, 0], v: [0, 0] };
    for (let t = 1; t <= 20; t++) {
      const g = [Math.sin(t), 0.1 * t];
      const [c1, c2] = [1 - b1 ** t, 1 - b2 ** t];
      const gradient = tf.tensor1d(g);
      adamUpdate(w, gradient, m, v, {
        learningRate: lr,
        beta1: b1,
        beta2: b2,
        gain: 1 - b1,
        epsilon,
        weightDecay: decay,
        correction1: c1,
        correction2: c2,
      });
      gradient.dispose();
      g.forEach((gi, i) => {
        ref.m[i] = b1 * ref.m[i]! + (1 - b1) * gi;
        ref.v[i] = b2 * ref.v[i]! + (1 - b2) * gi * gi;
        ref.w[i] = ref.w[i]! - lr * (ref.m[i]! / c1 / (Math.sqrt(ref.v[i]! / c2) + epsilon)) - lr * decay * ref.w[i]!;
      });
    }
    // 20 roundings of float32.
    expect(relativeError(w.dataSync(), ref.w)).toBeLessThan(3e-6);
    tf.dispose([w, m, v]);
  });

  it('leave no tensors behind', async () => {
    const run = (): void =>
      tf.tidy(() => {
        const x = tensor([4, 6], 1);
        takeSlices(x, 1, { indices: Int32Array.of(1, 2) });
        putSlices(x, 0, 9, { indices: Int32Array.of(1, 2, 3, 8) });
        squaredNorms(x, 0);
        dropout(x, 0.5, 1);
        const selection = { indices: tf.tensor1d([1, 1], 'int32'), scales: tf.ones<tf.Rank.R1>([2]) };
        putSlices(takeSlices(x, 1, selection), 1, 6, selection);
        tf.grad((v) => tf.sum(batchNorm(v, tf.ones([6]), tf.zeros([6]), { epsilon: 1e-3, activation: 'relu' }).y))(x);
      });
    run();
    await expectNoLeak(run);
  });
});

describe('dropout masks', () => {
  it('are the same bits on every engine', async () => {
    const { useEngine } = await import('../engine/ladder.js');
    const masks: string[] = [];
    for (const engine of ['cpu', 'portable', 'native'] as const) {
      const ready = await useEngine(engine, { log: () => undefined }).then(
        () => true,
        () => false,
      );
      if (ready) masks.push(tf.tidy(() => [...dropout(tf.ones([500]), 0.4, 4_000_000_000).dataSync()].join()));
    }
    expect(new Set(masks).size).toBe(1);
  });
});
