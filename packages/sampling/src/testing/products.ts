import {
  clockAt,
  type Call,
  conv2d,
  type Conv2dOptions,
  dense,
  type Geometry,
  type Method,
  openScope,
  type Product,
  registerKernels,
  type Rule,
  type RunContext,
  type Scope,
  type Selection,
  type Site,
  stream,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'vitest';
import type { SamplingMode, SamplingOptions } from '../rule.js';

/** The three operands of a site. */
export interface Operands {
  readonly geometry: Geometry;
  readonly x: tf.Tensor;
  readonly w: tf.Variable;
  readonly dy: tf.Tensor;
}

/** Values of the products of a site. */
export type Values = Partial<Record<Product, Float32Array>>;

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Normal values around `mean`, each index of `axis` of a size of its own, so that the choice matters. */
export function makeTensor(shape: number[], name: string, options: { mean?: number; uneven?: number } = {}): tf.Tensor {
  const { mean = 0.3, uneven = 0.5 } = options;
  const random = stream(11, name, ...shape);
  const last = shape.at(-1) as number;
  const sizes = Array.from({ length: last }, () => Math.exp(uneven * random.normal()));
  const first = Array.from({ length: shape[0] as number }, () => Math.exp(uneven * random.normal()));
  const row = product(shape) / (shape[0] as number);
  const value = (i: number): number =>
    (random.normal() + mean) * (sizes[i % last] as number) * (first[Math.floor(i / row)] as number);
  return tf.tensor(
    Float32Array.from({ length: product(shape) }, (_, i) => value(i)),
    shape,
    'float32',
  );
}

/** Title, geometry, and what a convolution was made of. */
export const GEOMETRIES: readonly (readonly [string, Geometry, Conv2dOptions | undefined])[] = [
  ['dense', dense, undefined],
  ...([1, 2] as const).flatMap((s) =>
    (['same', 'valid'] as const).map((pad) => {
      const options: Conv2dOptions = { strides: [s, s], pad };
      return [`conv2d, strides ${s}, ${pad}`, conv2d(options), options] as const;
    }),
  ),
];

/** Six inputs, six outputs and a batch of six: every product contracts six indices. */
export function makeOperands(geometry: Geometry): Operands {
  const x = makeTensor(geometry.slides ? [6, 4, 3, 6] : [6, 6], 'x');
  const w = tf.variable(makeTensor(geometry.slides ? [2, 2, 6, 6] : [6, 6], 'w'));
  const y = geometry.products.forward(x, w);
  return { geometry, x, w, dy: makeTensor(y.shape, 'dy') };
}

/** The site of these operands. */
export const makeSite = ({ geometry, w }: Operands): Site => ({
  name: 'site',
  index: 0,
  geometry,
  kernel: w,
  role: 'hidden',
});

/** Call number `use` of a site. */
export const makeCall = (site: Site, scope: Scope, use = 0): Call => ({
  site,
  scope,
  key: `0/${use}`,
  exact: site.geometry.products,
});

/** Runs the three products of a rule, in the order of a training step, and hands back their values and the plan. */
export function runRule(rule: Rule, operands: Operands, scope: Scope): Required<Values> & { plan: unknown } {
  const { x, w, dy } = operands;
  const call = makeCall(makeSite(operands), scope);
  const { exact } = call;
  const [y, dx, dw] = tf.tidy(() => {
    if (rule.plan) call.plan = rule.plan(call, x, w);
    return [
      rule.forward?.(call, x, w) ?? exact.forward(...(rule.operands?.(call, x, w) ?? ([x, w] as const))),
      (rule.inputGrad ?? ((_c, a, b, s) => exact.inputGrad(a, b, s)))(call, dy, w, x.shape),
      (rule.weightGrad ?? ((_c, a, b, s) => exact.weightGrad(a, b, s)))(call, x, dy, w.shape),
    ];
  }) as [tf.Tensor, tf.Tensor, tf.Tensor];
  const values = [y, dx, dw].map((t) => t.dataSync() as Float32Array) as [Float32Array, Float32Array, Float32Array];
  tf.dispose([y, dx, dw]);
  return { forward: values[0], inputGrad: values[1], weightGrad: values[2], plan: call.plan };
}

/** The rule of a method in a run of its own, on the engine that is active. Sampling asks nothing of the run. */
export const ruleOf = (method: Method): Rule => method.open({} as RunContext).rule as Rule;

/** What a plan has chosen, as plain numbers. */
export function selectionIn(plan: unknown): { size: number; indices: number[]; scales?: number[] } {
  const { size, indices, scales } = (plan as { selection: Selection }).selection;
  const numbers = (values: (ArrayLike<number> & Iterable<number>) | tf.Tensor): number[] => [
    ...(values instanceof tf.Tensor ? values.dataSync() : values),
  ];
  return { size, indices: numbers(indices), ...(scales && { scales: numbers(scales) }) };
}

/** The products of exact training. */
export function exactValues(operands: Operands): Required<Values> {
  return runRule({ name: 'exact', bias: 'unbiased' }, operands, openScope(clockAt(0), 0));
}

/** One product of one geometry, drawn many times: z-scores of the mean of each element against the exact value. */
export interface Scores {
  readonly label: string;
  readonly z: readonly number[];
  /** Mean |C~ − C|² over |C|². */
  readonly error: number;
}

const SAMPLED: Record<SamplingMode, readonly Product[]> = {
  through: ['forward'],
  blackBox: ['forward'],
  backward: ['inputGrad', 'weightGrad'],
};

/** z of a mean error: NaN for an element that is always exact (pixels no filter reaches), Infinity for a constant error. */
function score(sum: number, square: number, draws: number): number {
  if (square === 0) return Number.NaN;
  const variance = square / draws - (sum / draws) ** 2;
  // What is left of equal numbers is rounding.
  return variance > 1e-9 * (square / draws) ? sum / Math.sqrt(draws * variance) : Infinity;
}

/** Runs a rule `draws` times and scores each product that its mode samples. */
export function scoresOf(
  make: (options: SamplingOptions) => Method,
  mode: SamplingMode,
  operands: Operands,
  draws: number,
  seed: number,
): Scores[] {
  registerKernels(tf.getBackend());
  const exact = exactValues(operands);
  const rule = ruleOf(make({ keep: 0.5, minK: 1, mode }));
  const moments = SAMPLED[mode].map((name) => ({
    name,
    sum: new Float64Array(exact[name].length),
    square: new Float64Array(exact[name].length),
  }));
  for (let draw = 0; draw < draws; draw++) {
    const scope = openScope(clockAt(draw, draws), seed);
    const values = runRule(rule, operands, scope);
    scope.end();
    for (const { name, sum, square } of moments) {
      values[name].forEach((v, i) => {
        const error = v - (exact[name][i] as number);
        sum[i] = (sum[i] as number) + error;
        square[i] = (square[i] as number) + error * error;
      });
    }
  }
  return moments.map(({ name, sum, square }) => {
    const z = Array.from(sum, (s, i) => score(s, square[i] as number, draws)).filter((v) => !Number.isNaN(v));
    const size = exact[name].reduce((a, b) => a + b * b, 0);
    return { label: `${mode}, ${name}`, z, error: square.reduce((a, b) => a + b, 0) / draws / size };
  });
}

/**
 * Scores of a method at every geometry and every product that it samples. The elements of one product share their draws, so
 * their z-scores are not independent; over all products together the root mean square is near 1 for an unbiased method.
 */
export function allScores(make: (options: SamplingOptions) => Method, draws = 150): Scores[] {
  return GEOMETRIES.flatMap(([title, geometry], index) => {
    const operands = makeOperands(geometry);
    const scores = (['through', 'backward', 'blackBox'] as const)
      // Both sample Y alike; one of them is enough at convolutions.
      .filter((mode) => mode !== 'blackBox' || !geometry.slides)
      .flatMap((mode, i) => scoresOf(make, mode, operands, draws, 10 * index + i));
    operands.w.dispose();
    tf.dispose([operands.x, operands.dy]);
    return scores.map((score) => ({ ...score, label: `${title}, ${score.label}` }));
  });
}

export const rms = (values: readonly number[]): number =>
  Math.sqrt(values.reduce((a, b) => a + b * b, 0) / values.length);

/** Root mean square of all scores, every product with the same say. */
export const overall = (scores: readonly Scores[]): number => rms(scores.map(({ z }) => rms(z)));

/** Throws unless the scores look like those of an unbiased method. */
export function expectUnbiased(scores: readonly Scores[]): void {
  expect(scores).toHaveLength(16);
  // Sixteen products of about six free directions each: 1 ± 0.07 (one sigma) for an unbiased method.
  expect(overall(scores), 'root mean square of all z-scores').toBeGreaterThan(0.8);
  expect(overall(scores), 'root mean square of all z-scores').toBeLessThan(1.25);
  // The largest of some hundred independent normal values stays below 4.5 in all but one of a thousand runs.
  for (const { label, z } of scores) expect(Math.max(...z.map(Math.abs)), label).toBeLessThan(4.5);
}

/** w_i = |x column i|·|w row i| of a dense site in float64, and |Y|². */
export function denseWeights({ x, w, geometry }: Operands): { w: Float64Array; square: number } {
  const [n, k] = x.shape as [number, number];
  const m = w.shape[1] as number;
  const [xs, ws] = [x.dataSync(), w.dataSync()];
  const norm = (length: number, value: (j: number) => number): number =>
    Math.sqrt(Array.from({ length }, (_, j) => value(j) ** 2).reduce((a, b) => a + b, 0));
  const y = geometry.products.forward(x, w).dataSync() as Float32Array;
  return {
    w: Float64Array.from(
      { length: k },
      (_, i) => norm(n, (j) => xs[j * k + i] as number) * norm(m, (j) => ws[i * m + j] as number),
    ),
    square: y.reduce((a, b) => a + b * b, 0),
  };
}

/**
 * A dense site of positive inputs and positive weights, all of much the same size: where unscaled sampling loses the mean
 * of Y. `relativeBias` is |mean of draws of Y − Y| over |Y|.
 */
export function positiveOperands(): {
  operands: Operands;
  relativeBias: (make: (options: SamplingOptions) => Method, draws: number) => number;
} {
  const positive = (name: string, shape: [number, number]): tf.Tensor => {
    const random = stream(3, name);
    return tf.tensor2d(
      Float32Array.from({ length: shape[0] * shape[1] }, () => 0.5 + random.next()),
      shape,
    );
  };
  registerKernels(tf.getBackend());
  const operands: Operands = {
    geometry: dense,
    x: positive('x', [8, 20]),
    w: tf.variable(positive('w', [20, 4])),
    dy: positive('dy', [8, 4]),
  };
  const exact = exactValues(operands).forward;
  const relativeBias = (make: (options: SamplingOptions) => Method, draws: number): number => {
    const rule = ruleOf(make({ keep: 0.5, mode: 'blackBox' }));
    const mean = new Float64Array(exact.length);
    for (let draw = 0; draw < draws; draw++) {
      const { forward } = runRule(rule, operands, openScope(clockAt(draw), 1));
      forward.forEach((v, i) => {
        mean[i] = (mean[i] as number) + v / draws;
      });
    }
    const square = (v: Float64Array): number => v.reduce((a, b) => a + b * b, 0);
    return Math.sqrt(square(mean.map((v, i) => v - (exact[i] as number))) / square(Float64Array.from(exact)));
  };
  return { operands, relativeBias };
}
