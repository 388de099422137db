import { linearAlgebra, stream, train } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { afterEach, describe, expect, test } from 'vitest';
import { mexicanHat, sine } from './data.js';
import { enkf, type EnkfOptions } from './enkf.js';
import { esmda, inflationCoefficients } from './esmda.js';
import { analyse } from './solve.js';
import { extrapolated, masked } from './start.js';
import { columnMeans } from './statistics.js';
import { mean, net, rmse } from '../testing/curves.js';

const algebra = await linearAlgebra();
const quiet = { log: (): void => undefined };

afterEach(() => tf.disposeVariables());

describe('momentum', () => {
  test('by hand', () => {
    // 3 + ½·(3 − 1) = 4; −2 + ½·(−2 − 4) = −5.
    expect([...extrapolated(Float64Array.of(3, -2), Float64Array.of(1, 4), 0.5)]).toEqual([4, -5]);
    expect([...extrapolated(Float64Array.of(0.5, -2), Float64Array.of(1, 4), 0)]).toEqual([0.5, -2]);
  });

  /** Mean and deviation at x = 1 of two members of y = w·x after three analyses of the examples (1, 2) and (2, 3). */
  async function line(options: Partial<EnkfOptions>): Promise<number[]> {
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 1, useBias: false, inputShape: [1] })] });
    model.setWeights([tf.tensor2d([0.25], [1, 1])]);
    const method = enkf({ observationNoise: 2, members: 2, spread: 1, ...quiet, ...options });
    const [inputs, targets] = [Float32Array.of(1, 2), Float32Array.of(2, 3)];
    const data = { name: 'line', origin: 'made', length: 2, shape: [1], inputs, targets };
    const run = { epochs: 3, batchSize: 2, seed: 4, progress: false as const };
    const report = await train(model, data, { methods: [method], optimizer: [], ...run });
    const found = report.of(method).predict(tf.ones([1, 1]));
    return [found.mean, found.standardDeviation].map((tensor) => tensor.dataSync()[0] as number);
  }

  /** The same on plain numbers. Order of the examples: that of train's shuffle. */
  async function reference(lambda: number): Promise<number[]> {
    const prior = stream(4, 'step', 0, 'rank', 0, 'enkf', 'prior');
    let m = Float64Array.of(0.25 + prior.normal(), 0.25 + prior.normal());
    let before = m;
    for (let step = 0; step < 3; step++) {
      const members = m.map((value, j) => value + lambda * (value - (before[j] as number)));
      before = m;
      const order = [...stream(4, 'shuffle', step).permutation(2)];
      const predictions = Float64Array.from(
        [...members].flatMap((w) => order.map((i) => [1, 2][i] as number).map((x) => w * x)),
      );
      const observations = Float64Array.from(order, (i) => [2, 3][i] as number);
      const random = stream(4, 'step', step, 'rank', 0, 'enkf', 'noise');
      await analyse({ count: 2, members, predictions, observations, variance: 4 }, { random });
      m = members;
    }
    const [a = 0, b = 0] = m;
    return [(a + b) / 2, Math.abs(a - b) / Math.SQRT2];
  }

  test.each([0, 0.5, 0.9])('λ = %d equals the recursion on plain numbers', async (momentum) => {
    const [found, expected, plain] = [await line({ momentum }), await reference(momentum), await line({})];
    found.forEach((value, i) => expect(value).toBeCloseTo(expected[i] as number, 5));
    if (momentum === 0) expect(found).toEqual(plain);
    else expect(Math.abs((found[0] as number) - (plain[0] as number))).toBeGreaterThan(0.001);
  });

  test.each([
    ['sine', sine],
    ['hat', mexicanHat],
  ])('EKI with momentum is ahead of EKI on the %s', async (_name, make) => {
    const errors: number[] = [];
    for (const momentum of [0, 0.5]) {
      const found: number[] = [];
      for (const seed of [0, 1, 2, 3, 4]) {
        const { train: data, test: clean } = make({ seed });
        const method = enkf({ observationNoise: 1, momentum, ...quiet });
        const run = { epochs: 10, batchSize: 100, seed, progress: false as const };
        const report = await train(net(seed), data, { methods: [method], optimizer: [], ...run });
        found.push(rmse(report.of(method), clean));
      }
      errors.push(mean(found));
    }
    // Measured: 0.121 and 0.100 on the sine, 0.151 and 0.088 on the hat.
    expect(errors[1]).toBeLessThan(0.9 * (errors[0] as number));
  });

  test('values out of range', () => {
    expect(() => enkf({ observationNoise: 1, momentum: 1 })).toThrow(/momentum/);
    expect(() => enkf({ observationNoise: 1, dropout: 1 })).toThrow(/dropout/);
    expect(() => esmda({ observationNoise: 1, ...{ momentum: 0.5 } })).toThrow(/momentum/);
  });
});

describe('dropout', () => {
  test('by hand', () => {
    // Means 2, 4, 0. The mask of the stream is 0 where a uniform number is below ½.
    const members = Float64Array.of(1, 2, -3, 3, 6, 3);
    const source = stream(5);
    const keep = [0, 1, 2].map(() => source.next() >= 0.5);
    expect(new Set(keep).size, 'a mask of both kinds').toBe(2);
    const expected = [0, 1].flatMap((j) => keep.map((kept, p) => (kept ? members[3 * j + p] : [2, 4, 0][p])));
    expect([...masked(members, 2, 0.5, stream(5))]).toEqual(expected);
    expect(masked(members, 2, 0, stream(5))).toEqual(members);
  });

  /** 5 members on a linear problem of 20 parameters and 10 exact observations: misfit, and distance to the first span. */
  async function linear(rate: number): Promise<{ misfit: number; outside: number }> {
    const [j, p, n] = [5, 20, 10];
    const random = stream(7, 'linear');
    const h = Float64Array.from({ length: n * p }, () => random.normal());
    const truth = Float64Array.from({ length: p }, () => random.normal());
    const map = (m: Float64Array): Float64Array =>
      Float64Array.from({ length: n }, (_, k) => m.reduce((sum, v, i) => sum + v * (h[k * p + i] as number), 0));
    const members = Float64Array.from({ length: j * p }, () => Math.fround(random.normal()));
    const first = members.slice();
    for (let step = 0; step < 60; step++) {
      const noise = stream(8, step);
      const tried = rate > 0 ? masked(members, j, rate, noise) : members.slice();
      const predictions = Float64Array.from(
        Array.from({ length: j }, (_, i) => [...map(tried.subarray(i * p, (i + 1) * p))]).flat(),
      );
      const given = { count: j, members, tried, predictions, observations: map(truth), variance: 0.25 };
      await analyse(given, { random: noise, algebra });
    }
    const found = columnMeans(members, j);
    const misfit = Math.hypot(...map(found.map((v, i) => v - (truth[i] as number))));
    return { misfit, outside: distance(found, first, j) / Math.hypot(...found) };
  }

  /** Distance of a vector to the affine span of rows, by Gram–Schmidt on their differences. */
  function distance(vector: Float64Array, rows: Float64Array, count: number): number {
    const p = vector.length;
    const origin = rows.subarray(0, p);
    const basis: Float64Array[] = [];
    const rest = (v: Float64Array): Float64Array =>
      basis.reduce((r, b) => {
        const along = r.reduce((sum, x, i) => sum + x * (b[i] as number), 0);
        return r.map((x, i) => x - along * (b[i] as number));
      }, v);
    for (let j = 1; j < count; j++) {
      const r = rest(rows.slice(j * p, (j + 1) * p).map((x, i) => x - (origin[i] as number)));
      const norm = Math.hypot(...r);
      basis.push(r.map((x) => x / norm));
    }
    return Math.hypot(...rest(vector.map((x, i) => x - (origin[i] as number))));
  }

  test('leaves the span of the first ensemble, in which a plain analysis stays', async () => {
    const [plain, dropped] = [await linear(0), await linear(0.5)];
    expect(plain.outside).toBeLessThan(1e-10);
    expect(dropped.outside).toBeGreaterThan(0.1);
    expect(dropped.misfit).toBeLessThan(plain.misfit / 2);
  });

  test('ES-MDA with 20 members of 91 parameters is better with it', async () => {
    const errors: number[] = [];
    for (const dropout of [0, 0.5]) {
      const found: number[] = [];
      for (const seed of [0, 1, 2, 3, 4]) {
        const { train: data, test: clean } = sine({ seed });
        const coefficients = inflationCoefficients(10);
        const method = esmda({ observationNoise: 0.05, members: 20, dropout, coefficients, ...quiet });
        const run = { epochs: 10, batchSize: 100, seed, progress: false as const };
        const report = await train(net(seed, 30), data, { methods: [method], optimizer: [], ...run });
        found.push(rmse(report.of(method), clean));
      }
      errors.push(mean(found));
    }
    // Measured: 0.097 and 0.038.
    expect(errors[1]).toBeLessThan(0.7 * (errors[0] as number));
  });
});
