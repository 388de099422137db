import { type Call, type Clock, exactProducts, type Scope, movingAverage, type State } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { Layer } from './layers.js';

/** Eigenbases of a layer's factors: Q_A [a, a] and Q_G [g, g]. */
export interface Basis {
  readonly a: tf.Tensor2D;
  readonly g: tf.Tensor2D;
}

/** S [a, g] of each layer: second moments of the gradients of single examples, in the eigenbasis of its factors. */
export interface Corrections {
  init(layers: readonly Layer[]): void;
  /** Sees a call of a step that updates factors, and keeps what it gives until the end of the step. Inside `tf.tidy`. */
  observe(call: Call, x: tf.Tensor, dy: tf.Tensor): void;
  /** S ← α·S + (1 − α)·that of this step's examples. Inside `tf.tidy`. */
  average(scope: Scope, clock: Clock): void;
  /** S ← λ_A·λ_Gᵀ, as K-FAC has it: the bases have changed. */
  reset(products: ReadonlyMap<number, tf.Tensor2D>): void;
  /** S of a layer. */
  of(layer: number): tf.Tensor2D;
  state(): State;
  dispose(): void;
}

const stepName = (site: string): string => `kfac/S/${site}`;

/** Gradients of single examples, up to the factor B of a mean loss: [m, a, g] of the first m examples. */
function perExample({ site, rowsPerExample = 1 }: Call, x: tf.Tensor, dy: tf.Tensor, most: number): tf.Tensor3D {
  const g = dy.shape.at(-1) as number;
  const count = Math.min(most, (x.shape[0] as number) / rowsPerExample);
  if (site.geometry.kind === 'dense') {
    const rows = (of: tf.Tensor): tf.Tensor3D =>
      tf.reshape(tf.slice(of, 0, count * rowsPerExample), [count, rowsPerExample, of.shape.at(-1) as number]);
    const inputs = rows(x);
    const all = site.bias ? tf.concat([inputs, tf.ones([count, rowsPerExample, 1])], 2) : inputs;
    return tf.matMul(all, rows(dy), true) as tf.Tensor3D;
  }
  const { weightGrad } = exactProducts(site.geometry);
  const matrices = Array.from({ length: count }, (_, i) => {
    const [one, back] = [tf.slice(x, i, 1), tf.slice(dy, i, 1)];
    const matrix = tf.reshape(weightGrad(one, back, site.kernel.shape), [-1, g]);
    return site.bias ? tf.concat([matrix, tf.reshape(tf.sum(back, [0, 1, 2]), [1, g])], 0) : matrix;
  });
  return tf.stack(matrices) as tf.Tensor3D;
}

/** Mean over examples of (Q_Aᵀ·∇_n·Q_G)², element by element. */
function secondMoment(gradients: tf.Tensor3D, { a, g }: Basis): tf.Tensor2D {
  const [count, , columns] = gradients.shape;
  const [rows] = a.shape;
  // Without the row of a bias that is not trained.
  const own = gradients.shape[1] === rows ? gradients : tf.slice(gradients, 0, [count, rows, columns]);
  const right = tf.reshape(tf.matMul(tf.reshape(own, [count * rows, columns]), g), [count, rows, columns]);
  const turned = tf.matMul(tf.reshape(tf.transpose(right, [0, 2, 1]), [count * columns, rows]), a);
  const mean = tf.mean(tf.square(tf.reshape(turned, [count, columns, rows])), 0);
  return tf.transpose(mean) as tf.Tensor2D;
}

/** What corrections need of the method. */
export interface CorrectionOptions {
  /** Examples of a batch whose gradients are looked at. */
  readonly examples: number;
  readonly decay: (clock: Clock) => number;
  readonly lossReduction: 'mean' | 'sum';
  /** The installed basis of a site; undefined before there is one. Its tensors are borrowed. */
  readonly basis: (site: string) => Basis | undefined;
}

/** Makes corrections that start with the first decomposition. */
export function createCorrections({ examples, decay, lossReduction, basis }: CorrectionOptions): Corrections {
  let layers: readonly Layer[] = [];
  let variables: tf.Variable[] = [];
  const dispose = (): void => {
    tf.dispose(variables);
    variables = [];
  };
  return {
    init(of) {
      dispose();
      layers = of;
      variables = of.map(({ a, g }) => tf.tidy(() => tf.variable(tf.zeros([a, g]), false)));
    },
    observe(call, x, dy) {
      const { site, scope, rowsPerExample = 1 } = call;
      const of = basis(site.name);
      if (!of) return;
      const batch = (x.shape[0] as number) / rowsPerExample;
      const moment = secondMoment(perExample(call, x, dy, examples), of);
      const scaled = lossReduction === 'mean' ? tf.mul(moment, batch * batch) : moment;
      const before = scope.get(stepName(site.name));
      scope.keep(stepName(site.name), before ? tf.add(before, scaled) : scaled);
    },
    average(scope, clock) {
      for (const [i, { site }] of layers.entries()) {
        const seen = scope.get(stepName(site.name));
        const variable = variables[i] as tf.Variable;

        if (seen) movingAverage(variable, seen, decay(clock));
      }
    },
    reset(products) {
      for (const [i, product] of products) variables[i]?.assign(product);
    },
    of: (layer) => variables[layer] as unknown as tf.Tensor2D,
    state: () =>
      new Map(layers.flatMap(({ name }, i) => (variables[i] ? [[`kfac/S/${name}`, variables[i]] as const] : []))),
    dispose,
  };
}
