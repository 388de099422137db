import { type Call, type Clock, movingAverage, type Scope, type Site } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { Layer } from './layers.js';
import type { Seen } from './seen.js';

/** Eigenbases of a layer's factors: Q_A [a, a] and Q_G [g, g]. */
export interface Basis {
  readonly a: tf.Tensor2D;
  readonly g: tf.Tensor2D;
}

/** S [a, g] of each layer: second moments of the gradients of single examples, in the eigenbasis of its factors. */
export interface Corrections {
  /** Sees a call of a step that updates factors. Inside `tf.tidy`. */
  observe(call: Call, x: tf.Tensor, dy: tf.Tensor): void;
  /** S ← α·S + (1 − α)·that of this step, which had so many examples. Inside `tf.tidy`. */
  average(scope: Scope, examplesOf: (site: Site) => number): void;
  /** S ← λ_A·λ_Gᵀ, as K-FAC has it: the bases have changed. */
  reset(products: ReadonlyMap<number, tf.Tensor2D>): void;
  /** S of a layer. */
  of(layer: number): tf.Tensor2D;
  state(): Map<string, tf.Variable>;
  dispose(): void;
}

const stepName = ({ name }: Site): string => `kfac/S/${name}`;

/** Gradients of single examples, up to the factor B of a mean loss: [m, a, g] of the first m examples. */
function perExample({ site, rowsPerExample = 1 }: Call, x: tf.Tensor, dy: tf.Tensor, most: number): tf.Tensor3D {
  const count = Math.min(most, (x.shape[0] as number) / rowsPerExample);
  const { geometry, kernel, bias } = site;
  return geometry.exampleGradients({ x, dy, wShape: kernel.shape, rowsPerExample, count, bias: bias !== undefined });
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
  readonly basis: (site: Site) => Basis | undefined;
  /** Where moments are kept until the end of the step. */
  readonly seen: Seen;
}

/** Makes corrections for these layers that start with the first decomposition. */
export function createCorrections(
  { examples, decay, lossReduction, basis, seen }: CorrectionOptions,
  layers: readonly Layer[],
): Corrections {
  const variables = layers.map(({ a, g }) => tf.tidy(() => tf.variable(tf.zeros([a, g]), false)));
  return {
    observe(call, x, dy) {
      const { site, scope } = call;
      // The first examples of a step are in its first part.
      const of = scope.part === 0 ? basis(site) : undefined;
      if (of) seen.add(scope, stepName(site), secondMoment(perExample(call, x, dy, examples), of));
    },
    average({ clock }, examplesOf) {
      for (const [i, { site }] of layers.entries()) {
        const moment = seen.get(stepName(site));
        if (!moment) continue;
        const batch = examplesOf(site);
        // dY of a mean loss is 1/B of the gradient of one example.
        const scaled = lossReduction === 'mean' ? tf.mul(moment, batch * batch) : moment;
        movingAverage(variables[i] as tf.Variable, scaled, decay(clock));
      }
    },
    reset(products) {
      for (const [i, product] of products) variables[i]?.assign(product);
    },
    of: (layer) => variables[layer] as unknown as tf.Tensor2D,
    state: () => new Map(layers.map(({ name }, i) => [`kfac/S/${name}`, variables[i] as tf.Variable])),
    dispose: () => tf.dispose(variables),
  };
}
