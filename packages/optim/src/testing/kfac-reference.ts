import { eye, fill, inner, kronecker, map, plus, product, type Rows, rowsOf, solve, transpose } from './matrices.js';

/** A batch of examples. For tests only. */
export interface Examples {
  readonly x: Rows;
  readonly y: Rows;
}

/** What one layer sees of a batch. For tests only. */
export interface Trace {
  /** Rows of inputs, 1 at their end. */
  readonly a: Rows;
  /** Gradient of each example's own loss with respect to the layer's outputs. */
  readonly g: Rows;
  /** Gradient of the mean loss with respect to weight and bias. */
  readonly gradient: Rows;
}

/** Losses that the reference knows. For tests only. */
export type ReferenceLoss = 'meanSquaredError' | 'crossEntropy';

const withOnes = (x: Rows): Rows => x.map((row) => [...row, 1]);

/** Softmax of each row. For tests only. */
export function softmax(z: Rows): Rows {
  return z.map((row) => {
    const top = Math.max(...row);
    const powers = row.map((value) => Math.exp(value - top));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((value) => value / sum);
  });
}

/** Mean loss of a network of tanh layers with a linear end. For tests only. */
export function lossOf(weights: readonly Rows[], { x, y }: Examples, loss: ReferenceLoss): number {
  let z = x;
  for (const [i, w] of weights.entries()) z = product(withOnes(i === 0 ? z : map(z, Math.tanh)), w);
  const each =
    loss === 'meanSquaredError'
      ? map(z, (value, i, j) => (value - y[i]![j]!) ** 2 / z[0]!.length)
      : map(softmax(z), (p, i, j) => -y[i]![j]! * Math.log(p));
  return (
    inner(
      each,
      map(each, () => 1),
    ) / x.length
  );
}

/** Forward and backward pass of a network of tanh layers with a linear end; weights [a, g], bias below. For tests only. */
export function backward(weights: readonly Rows[], { x, y }: Examples, loss: ReferenceLoss): Trace[] {
  const inputs: Rows[] = [];
  let z = x;
  for (const [i, w] of weights.entries()) {
    inputs.push(withOnes(i === 0 ? z : map(z, Math.tanh)));
    z = product(inputs[i]!, w);
  }
  let g =
    loss === 'meanSquaredError'
      ? map(z, (value, i, j) => (2 * (value - y[i]![j]!)) / z[0]!.length)
      : map(softmax(z), (p, i, j) => p - y[i]![j]!);
  const traces: Trace[] = [];
  for (let i = weights.length - 1; i >= 0; i--) {
    const a = inputs[i]!;
    traces.unshift({ a, g, gradient: map(product(transpose(a), g), (value) => value / x.length) });
    const back = product(g, transpose(weights[i]!));
    g = fill(x.length, a[0]!.length - 1, (r, c) => back[r]![c]! * (1 - a[r]![c]! ** 2));
  }
  return traces;
}

/** 1/B·Σ r·rᵀ. For tests only. */
export const secondMoment = (rows: Rows): Rows => map(product(transpose(rows), rows), (value) => value / rows.length);

/** A and G in double precision. For tests only. */
export interface ReferenceFactors {
  readonly a: Rows;
  readonly g: Rows;
}

/** P by a dense solve of (A ⊗ G + γ·I)·vec(P) = vec(∇). For tests only. */
export function denseSolve(gradient: Rows, { a, g }: ReferenceFactors, damping: number): Rows {
  const n = a.length * g.length;
  const solved = solve(plus(kronecker(a, g), eye(n), damping), rowsOf(gradient.flat(), 1));
  return rowsOf(solved.flat(), g.length);
}

const meanDiagonal = (a: Rows): number => a.reduce((sum, row, i) => sum + row[i]!, 0) / a.length;

/** P by two solves, of A and of G damped each. For tests only. */
export function splitSolve(gradient: Rows, { a, g }: ReferenceFactors, damping: number): Rows {
  const pi = Math.sqrt(meanDiagonal(a) / meanDiagonal(g));
  const left = solve(plus(a, eye(a.length), pi * Math.sqrt(damping)), gradient);
  return transpose(solve(plus(g, eye(g.length), Math.sqrt(damping) / pi), transpose(left)));
}

/** Options of {@link kfacReference}. For tests only. */
export interface ReferenceOptions {
  readonly loss: ReferenceLoss;
  readonly learningRate: (step: number) => number;
  readonly damping: (step: number) => number;
  readonly decay?: number;
  readonly start?: 'batch' | 'identity';
  readonly factorEvery?: number;
  readonly inverseEvery?: number;
  readonly klClip?: number;
  readonly form?: 'eigen' | 'inverse';
  readonly overlap?: boolean;
}

/** K-FAC with plain SGD, step by step in double precision, on one batch per step: the weights after each. For tests only. */
export function kfacReference(
  start: readonly Rows[],
  batches: readonly Examples[],
  options: ReferenceOptions,
): Rows[][] {
  const { decay = 0.95, factorEvery = 1, inverseEvery = 1, form = 'eigen', overlap = false } = options;
  let weights = [...start];
  let averages: ReferenceFactors[] | undefined =
    options.start === 'identity' ? start.map((w) => ({ a: eye(w.length), g: eye(w[0]!.length) })) : undefined;
  let used: { factors: ReferenceFactors[]; damping: number } | undefined;
  let begun: typeof used;
  let count = 0;
  return batches.map((batch, step) => {
    const traces = backward(weights, batch, options.loss);
    const gamma = options.damping(step);
    if (step % factorEvery === 0) {
      if (begun) [used, begun] = [begun, undefined];
      count++;
      const alpha = options.start === 'identity' ? decay : Math.min(decay, 1 - 1 / count);
      const old = averages;
      averages = traces.map(({ a, g }, i) => {
        const now = { a: secondMoment(a), g: secondMoment(g) };
        const mix = (before: Rows | undefined, after: Rows): Rows =>
          before
            ? plus(
                map(before, (v) => alpha * v),
                after,
                1 - alpha,
              )
            : after;
        return { a: mix(old?.[i]?.a, now.a), g: mix(old?.[i]?.g, now.g) };
      });
    }
    if (!used || step % inverseEvery === 0) {
      const fresh = { factors: averages!, damping: gamma };
      if (begun) used = begun;
      begun = undefined;
      if (overlap && used) begun = fresh;
      else used = fresh;
    }
    const { factors, damping } = used!;
    const changes = traces.map(({ gradient }, i) =>
      form === 'eigen' ? denseSolve(gradient, factors[i]!, gamma) : splitSolve(gradient, factors[i]!, damping),
    );
    const rate = options.learningRate(step);
    const predicted = traces.reduce((sum, { gradient }, i) => sum + inner(gradient, changes[i]!), 0) * rate * rate;
    const nu = options.klClip === undefined ? 1 : Math.min(1, Math.sqrt(options.klClip / predicted));
    weights = weights.map((w, i) => plus(w, changes[i]!, -rate * nu));
    return weights;
  });
}
