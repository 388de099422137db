import { createHash } from 'node:crypto';
import * as tf from '@tensorflow/tfjs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { registerNative } from '../index.js';
import { numbers, random, relativeError, runKernel, runOn, runOne } from './compare.js';

const BIG = 10_000; // longer than what readSync copies

function recycling(): void {
  beforeEach(() => void tf.setBackend('native'));
  it('uses the buffers of disposed tensors again', () => {
    const engine = registerNative();
    const step = (): void => {
      tf.tidy(() => void tf.relu(tf.add(random([64, 33], 1), 1)).sum());
    };
    step();
    engine.resetCounters();
    for (let i = 0; i < 5; i++) step();
    expect(engine.counters()).toMatchObject({ newBuffers: 0, newBytes: 0, fallbacks: {} });
    expect(engine.counters().reusedBuffers).toBeGreaterThanOrEqual(15);
  });
  it.each([10, BIG])('never changes an array that dataSync gave away (%s numbers)', (length) => {
    const x = tf.tensor1d(numbers(length, 1));
    const y = tf.square(x);
    const seen = y.dataSync();
    const copy = seen.slice();
    y.dispose();
    for (let i = 0; i < 5; i++) tf.fill([length], i).dispose();
    const others = [1, 2, 3].map((v) => tf.fill([length], v));
    expect(seen).toEqual(copy);
    tf.dispose([x, ...others]);
  });
  it('keeps what JavaScript kernels made views of', () => {
    const x = tf.square(tf.range(0, BIG, 1, 'float32'));
    const y = tf.slice(x, [0], [5000]);
    x.dispose();
    const fills = [1, 2].map((v) => tf.fill([BIG], v));
    expect(y.dataSync()[4999]).toBe(Math.fround(4999 ** 2));
    tf.dispose([y, ...fills]);
  });
  it('never recycles the arrays of users, nor data that are shared', () => {
    const mine = numbers(BIG, 1);
    const copy = mine.slice();
    const t = tf.tensor1d(mine);
    t.dispose();
    tf.fill([BIG], 3).dispose();
    expect(mine).toEqual(copy);
    const a = tf.fill([BIG], 4);
    const b = a.reshape([100, 100]);
    a.dispose();
    const c = tf.fill([BIG], 5);
    expect(b.dataSync()[BIG - 1]).toBe(4);
    tf.dispose([b, c]);
  });
  it('moves tensors between backends', () => {
    void tf.setBackend('cpu');
    const a = tf.tensor1d([1, 2, 3]);
    void tf.setBackend('native');
    const b = tf.add(a, a);
    void tf.setBackend('cpu');
    expect([...tf.add(a, b).dataSync()]).toEqual([3, 6, 9]);
    void tf.setBackend('native');
    tf.dispose([a, b]);
  });
  it('handles complex tensors', () => {
    const before = tf.memory().numTensors;
    const parts = tf.tidy(() => {
      const z = tf.complex([1, 2, 3, 4], [5, 6, 7, 8]).reshape([2, 2]);
      return [tf.real(z), tf.imag(z)];
    });
    expect(parts.map((t) => [...t.dataSync()])).toEqual([
      [1, 2, 3, 4],
      [5, 6, 7, 8],
    ]);
    tf.dispose(parts);
    expect(tf.memory().numTensors).toBe(before);
  });
}

interface Update {
  readonly kernel: 'FrugalSgd' | 'FrugalAdam';
  readonly attrs: Record<string, number | boolean>;
  readonly state: readonly string[];
}

const sgd = { learningRate: 0.1, momentum: 0.9, nesterov: false, weightDecay: 0.01, coupledDecay: 0 };
const adam = {
  learningRate: 0.01,
  beta1: 0.9,
  beta2: 0.999,
  gain: 0.1,
  epsilon: 1e-8,
  weightDecay: 0.1,
  correction1: 0.19,
  correction2: 0.002,
};
const UPDATES: Update[] = [
  { kernel: 'FrugalSgd', attrs: sgd, state: [] },
  { kernel: 'FrugalSgd', attrs: sgd, state: ['v'] },
  { kernel: 'FrugalSgd', attrs: { ...sgd, nesterov: true }, state: ['v'] },
  { kernel: 'FrugalSgd', attrs: { ...sgd, coupledDecay: 0.3 }, state: [] },
  { kernel: 'FrugalSgd', attrs: { ...sgd, coupledDecay: 0.3, nesterov: true }, state: ['v'] },
  { kernel: 'FrugalAdam', attrs: adam, state: ['m', 'v'] },
];

/** New values of the weights and of each state, in double precision. */
function reference({ kernel, state, attrs }: Update, w: Float32Array, g: Float32Array, s: Float32Array[]): number[][] {
  const out: number[][] = [w, ...state].map(() => []);
  for (let i = 0; i < w.length; i++) {
    const old = w[i]!;
    const up = g[i]! + Number(attrs['coupledDecay'] ?? 0) * old;
    if (kernel === 'FrugalSgd') {
      const v = state.length === 0 ? up : sgd.momentum * s[0]![i]! + up;
      const d = state.length > 0 && attrs['nesterov'] === true ? up + sgd.momentum * v : v;
      out[0]![i] = old - sgd.learningRate * d - sgd.learningRate * sgd.weightDecay * old;
      if (state.length > 0) out[1]![i] = v;
    } else {
      const m = adam.beta1 * s[0]![i]! + adam.gain * up;
      const v = adam.beta2 * s[1]![i]! + (1 - adam.beta2) * up * up;
      const step = m / adam.correction1 / (Math.sqrt(v / adam.correction2) + adam.epsilon);
      out[0]![i] = old - adam.learningRate * step - adam.learningRate * adam.weightDecay * old;
      out[1]![i] = m;
      out[2]![i] = v;
    }
  }
  return out;
}

function updates(): void {
  const N = 20_001;
  const [w, g] = [numbers(N, 1), numbers(N, 2)];
  const states = [numbers(N, 3).map((v) => Math.abs(v)), numbers(N, 4).map((v) => Math.abs(v))];
  let tensors: Record<string, tf.Tensor> = {};
  const close = (names: readonly string[], want: readonly number[][]): void => {
    names.forEach((name, i) => expect(relativeError(tensors[name]!.dataSync(), want[i]!), name).toBeLessThan(1e-5));
  };
  const make = ({ state }: Update, own: boolean): void => {
    void tf.setBackend('native');
    // Tensors of the pool when `own`, otherwise of arrays that belong to the user.
    const tensor = (v: Float32Array): tf.Tensor => tf.tidy(() => (own ? tf.add(tf.tensor1d(v), 0) : tf.tensor1d(v)));
    tensors = { w: tensor(w), g: tensor(g) };
    state.forEach((name, i) => {
      tensors[name] = tensor(states[i]!);
    });
  };
  afterEach(() => tf.dispose(tensors));

  it.each(UPDATES)('$kernel of $state, in place', (update) => {
    const names = ['w', ...update.state];
    const want = reference(update, w, g, states);
    make(update, true);
    const engine = registerNative();
    engine.resetCounters();
    expect(runKernel(update.kernel, tensors, update.attrs)).toEqual([]);
    expect(engine.counters()).toMatchObject({ fallbacks: {}, newBuffers: 0 });
    close(names, want);
  });
  it.each(UPDATES)('$kernel of $state leaves arrays that users hold', (update) => {
    const want = reference(update, w, g, states);
    make(update, false);
    const [before, copies] = [tensors['w']!.dataSync(), [w, ...states].map((v) => v.slice())];
    const held = before.slice();
    expect(runKernel(update.kernel, tensors, update.attrs)).toEqual([]);
    expect(before).toEqual(held);
    expect([w, ...states]).toEqual(copies);
    close(['w', ...update.state], want);
    // dataSync of the new values escapes as well: the next update must not change them.
    const after = tensors['w']!.dataSync();
    const kept = after.slice();
    expect(runKernel(update.kernel, tensors, update.attrs)).toEqual([]);
    expect(after).toEqual(kept);
  });
  it.each(UPDATES)('$kernel of $state gives new tensors when data are shared', (update) => {
    const names = ['w', ...update.state];
    const want = reference(update, w, g, states);
    for (const shared of names) {
      make(update, true);
      const olds = names.map((name) => tensors[name]!.dataSync().slice());
      const alias = tensors[shared]!.clone();
      const created = runKernel(update.kernel, tensors, update.attrs);
      expect(created.length).toBe(names.length);
      names.forEach((name, i) => expect(tensors[name]!.dataSync()).toEqual(olds[i]));
      created.forEach((t, i) => expect(relativeError(t.dataSync(), want[i]!)).toBeLessThan(1e-5));
      tf.dispose([alias, ...created, ...Object.values(tensors)]);
    }
  });
}

/** A digest of the bits of an array. */
const bits = (values: Float32Array): string =>
  createHash('sha256')
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest('hex');

function determinism(): void {
  it('gives the same bits each time', () => {
    const run = (): string[] =>
      runOn('native', () => {
        const x = random([512, 9, 9, 17], 1);
        const flat = x.reshape([512 * 81, 17]);
        const wide = x.reshape([512, 81 * 17]);
        const bn = runKernel(
          'FrugalBatchNorm',
          { x: flat, gamma: tf.ones([17]), beta: tf.zeros([17]) },
          { epsilon: 1e-3, activation: 'relu' },
        );
        return [
          ...[x.sum(), flat.sum(0), flat.mean(1), wide.sum(0), x.sum([0, 2])],
          ...runKernel('FrugalReluBiasGrad', { dy: flat, y: bn[0] }),
          ...[0, 1].map((axis) => runOne('FrugalNorms', { x: flat }, { axis })),
          ...bn,
          tf.matMul(wide, wide, true, false),
          tf.conv2d(x as tf.Tensor4D, random([3, 3, 17, 8], 2) as tf.Tensor4D, 1, 'same'),
        ];
      }).values.map((values) => bits(values as Float32Array));
    const first = run();
    for (let i = 0; i < 5; i++) expect(run()).toEqual(first);
  });
}

/** Storage, the pool of buffers, updates in place, and reproducibility. */
export function memoryRules(): void {
  describe('recycling', recycling);
  describe('updates', updates);
  describe('determinism', determinism);
}
