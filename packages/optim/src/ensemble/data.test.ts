import { batches, checkDataset, type Dataset, train } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { afterEach, describe, expect, test } from 'vitest';
import { net, rmse } from '../testing/curves.js';
import { friedman, mexicanHat, sine } from './data.js';
import { enkf } from './enkf.js';

afterEach(() => tf.disposeVariables());

/** Root mean square of target − f(x). */
function residual({ inputs, targets, shape: [width = 1] }: Dataset, f: (x: number[]) => number): number {
  const errors = Array.from(targets, (y, i) => y - f([...inputs.subarray(i * width, (i + 1) * width)]));
  return Math.sqrt(errors.reduce((sum, e) => sum + e * e, 0) / errors.length);
}

const height = 2 / (Math.sqrt(3) * Math.PI ** 0.25);
const cases = [
  ['sine', sine, 0.05, ([x = 0]: number[]) => Math.sin(x)],
  ['mexicanHat', mexicanHat, 0.05, ([x = 0]: number[]) => height * (1 - x * x) * Math.exp((-x * x) / 2)],
  [
    'friedman',
    friedman,
    1 / 30,
    ([a = 0, b = 0, c = 0, d = 0, e = 0]: number[]) =>
      (10 * Math.sin(Math.PI * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e) / 30,
  ],
] as const;

describe.each(cases)('%s', (_name, make, noise, f) => {
  test('clean and noisy examples', () => {
    const made = make({ seed: 2, length: 400 });
    for (const data of [made.train, made.test, made.stream(7)]) checkDataset(data);
    expect(residual(made.test, f)).toBeLessThan(1e-7);
    // The standard error of a deviation of 400 numbers is 3.5 %.
    expect(residual(made.train, f) / noise).toBeGreaterThan(0.88);
    expect(residual(made.train, f) / noise).toBeLessThan(1.12);
    expect(residual(make({ noise: 0 }).train, f)).toBeLessThan(1e-7);
    expect(make({ seed: 2, length: 400 }).train).toEqual(made.train);
    expect(make({ seed: 3, length: 400 }).train.targets).not.toEqual(made.train.targets);
  });

  test('in a stream each observation is new', () => {
    const { stream, train: fixed } = make({ seed: 2 });
    const long = stream(2000);
    const width = long.shape[0] as number;
    expect(stream(2000)).toEqual(long);
    expect(new Set(long.inputs).size).toBeGreaterThan(0.999 * long.inputs.length);
    expect(residual(long, f) / noise).toBeGreaterThan(0.95);
    expect(residual(long, f) / noise).toBeLessThan(1.05);
    // Two parts are the whole; another seed shares nothing with it.
    const [head, tail] = [stream(1500), stream(500, 1500)];
    expect([...head.inputs, ...tail.inputs]).toEqual([...long.inputs]);
    expect([...head.targets, ...tail.targets]).toEqual([...long.targets]);
    const other = new Set(make({ seed: 3 }).stream(100).targets);
    expect([...long.targets].filter((y) => other.has(y)).length).toBeLessThan(5);
    expect(fixed.length).toBeLessThan(long.length);
    expect(() => stream(0)).toThrow(/examples/);
    expect(() => stream(1, -1)).toThrow(/from/);
    expect(width).toBe(long.inputs.length / 2000);
  });

  test('inputs are scaled, and fill the domain', () => {
    const { stream } = make();
    for (const { xs } of batches(stream(2000), { batchSize: 2000 })) {
      const { mean, variance } = tf.moments(xs);
      // Uniform on [−√3, √3] for friedman, on [−3, 3] for the others: variance 1 and 3.
      expect(Math.abs(mean.dataSync()[0] as number)).toBeLessThan(0.12);
      const wanted = xs.shape[1] === 10 ? 1 : 3;
      expect((variance.dataSync()[0] as number) / wanted).toBeCloseTo(1, 1);
    }
  });
});

test('friedman by hand', () => {
  // x = (1, ½, 0, 0.4, 0.8): 10·sin(π/2) + 20·¼ + 4 + 4 = 23; the five last inputs do not matter.
  const { inputs, targets } = friedman({ noise: 0 }).train;
  expect(Math.min(...targets)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...targets)).toBeLessThanOrEqual(1);
  expect(inputs).toHaveLength(2000);
  const f = cases[2][3];
  expect(f([1, 0.5, 0, 0.4, 0.8, 0.1, 0.2, 0.3, 0.4, 0.5])).toBeCloseTo(23 / 30, 12);
});

test('bad options', () => {
  expect(() => friedman({ length: 1 })).toThrow(/length/);
  expect(() => sine({ noise: -1 })).toThrow(/noise/);
  expect(() => sine({ seed: 1, ...{ size: 3 } })).toThrow(/size/);
});

test('EnKF learns from a stream in one pass', async () => {
  const { stream, test: clean } = sine({ seed: 1 });
  const errors: number[] = [];
  for (const examples of [20, 200]) {
    const method = enkf({ observationNoise: 0.05, log: () => undefined });
    const run = { epochs: 1, batchSize: 1, progress: false as const };
    const report = await train(net(1), stream(examples), { methods: [method], optimizer: [], ...run });
    errors.push(rmse(report.of(method), clean));
  }
  expect(errors[1]).toBeLessThan(0.1);
  expect(errors[1]).toBeLessThan((errors[0] as number) / 2);
});
