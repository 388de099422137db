import {
  checkChoice,
  checkInteger,
  checkOptions,
  type Clock,
  FrugalError,
  type GradientLink,
  type Hyper,
  hyper,
  type Param,
  type Schedule,
  show,
  type SymmetricEigen,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { betweenSides, type Folded, foldTensor, openSides, outer, type SideFilter } from './kronecker.js';

/** Options of {@link shampoo}. */
export interface ShampooOptions {
  /** β in [0, 1]: what averages of G·Gᵀ keep in one step; 1 sums instead, as Gupta et al. do. Default 0.95, as in `soap`. */
  readonly beta?: Hyper;
  /** ε > 0: eigenvalues grow by ε times the largest. Default 1e-6 (Anil et al.'s code); less drowns in float32. */
  readonly epsilon?: Hyper;
  /** Roots are computed anew in every so many steps, by number or schedule. Default 10. */
  readonly inverseEvery?: Hyper;
  /** A side that is larger has no preconditioner: a decomposition takes O(n³). Default 2048. */
  readonly largest?: number;
  /** `'gradient'`: P is as long as G; `'none'`: as it comes. Default `'gradient'`. */
  readonly graft?: 'gradient' | 'none';
  /** Which weights pass as they are. Default: those of rank ≤ 1, which are biases, gains and shifts. */
  readonly exclude?: (param: Param) => boolean;
}

const KNOWN = ['beta', 'epsilon', 'inverseEvery', 'largest', 'graft', 'exclude'];

interface Settings {
  readonly beta: Schedule;
  readonly epsilon: Schedule;
  readonly inverseEvery: Schedule;
  readonly largest: number;
  readonly grafts: boolean;
  readonly exclude: (param: Param) => boolean;
}

const isVector = ({ value }: Param): boolean => value.shape.length <= 1;

function settle(options: ShampooOptions): Settings {
  checkOptions('shampoo', options, KNOWN);
  const { exclude = isVector } = options;
  if (typeof exclude !== 'function')
    throw new FrugalError(
      'CONFIG',
      `shampoo: expected exclude to be a function of a Param but received ${show(exclude)}. For none, pass () => false.`,
    );
  return {
    beta: hyper('shampoo', 'beta', options.beta ?? 0.95, { min: 0, max: 1 }),
    epsilon: hyper('shampoo', 'epsilon', options.epsilon ?? 1e-6, { min: 0, aboveMin: true }),
    inverseEvery: hyper('shampoo', 'inverseEvery', options.inverseEvery ?? 10, { min: 1 }),
    largest: checkInteger('shampoo', 'largest', options.largest ?? 2048, { min: 1 }),
    grafts: checkChoice('shampoo', 'graft', options.graft ?? 'gradient', ['gradient', 'none']) === 'gradient',
    exclude,
  };
}

/** (S/total + ε·λ_max·I)^(−power) of a sum S; the identity where S is zero. */
function inverseRoot({ values, vectors }: SymmetricEigen, power: number, epsilon: number, total: number): tf.Tensor {
  const n = vectors.rows;
  const top = values[n - 1] as number;
  if (!(top > 0)) return tf.eye(n);
  // V·diag(f)·Vᵀ as a square: never indefinite by rounding.
  const halves = Float32Array.from(values, (value) => ((Math.max(value, 0) + epsilon * top) / total) ** (-power / 2));
  const half = tf.mul(tf.tensor2d(vectors.data as Float32Array, [n, n]), tf.tensor1d(halves));
  return tf.matMul(half as tf.Tensor2D, half as tf.Tensor2D, false, true);
}

/** Keeps a quotient finite in float32. */
const SMALLEST = 1e-30;

const norm = (x: tf.Tensor): tf.Tensor => tf.sqrt(tf.sum(tf.square(x)));

/** P, as long as G if asked. */
function precondition(g: tf.Tensor, folded: Folded, grafts: boolean): tf.Tensor {
  const p = tf.reshape(betweenSides(foldTensor(g, folded), folded), g.shape);
  return grafts ? tf.mul(p, tf.div(norm(g), tf.maximum(norm(p), SMALLEST))) : p;
}

/** Sums and roots of a run. */
function openRoots({ beta, epsilon, inverseEvery, largest, exclude }: Settings, params: readonly Param[]) {
  const keeps: SideFilter = (param, side, size) => {
    const kept = isVector(param) ? side === 'R' : true;
    return kept && size <= largest && !exclude(param);
  };
  const sides = openSides('shampoo', 'root', keeps, params);
  const total = new Float64Array(1);
  return {
    of: sides.of,
    prepare: sides.prepare,
    /** Adds the gradients of a step, and computes roots where it is time. */
    advance(gradients: readonly (readonly [Folded, tf.Tensor])[], clock: Clock): void {
      const b = beta(clock);
      const [kept, gain] = [b, b === 1 ? 1 : 1 - b];
      const [before = 0] = total;
      const after = b === 1 ? 1 : b * before + gain;
      total[0] = after;
      for (const [folded, g] of gradients) {
        for (const side of folded.sides)
          side.sum.assign(tf.add(tf.mul(side.sum, kept), tf.mul(outer(foldTensor(g, folded), side), gain)));
      }
      const every = Math.max(1, Math.round(inverseEvery(clock)));
      if (before > 0 && clock.step % every !== 0) return;
      const eps = epsilon(clock);
      sides.decompose((eigen, of) => inverseRoot(eigen, of.sides.length === 2 ? 1 / 4 : 1 / 2, eps, after));
    },
    state: () => new Map<string, tf.Variable | Float64Array>([...sides.state(), ['shampoo/total', total]]),
    dispose: sides.dispose,
  };
}

/**
 * Shampoo: the gradient G [m, n] of a weight between inverse roots of what its rows and its columns have in common,
 *
 *   L ← β·L + (1 − β)·G·Gᵀ [m, m],   R ← β·R + (1 − β)·Gᵀ·G [n, n];   L + G·Gᵀ, R + Gᵀ·G for β = 1
 *   P = (L̂ + ε·λ_max·I)^(−1/4) · G · (R̂ + ε·λ_max·I)^(−1/4),   u ← P·|G|/|P|,
 *
 * with L̂ = L / (1 − Π β), R̂ alike (L, R for β = 1) and λ_max the largest eigenvalue of each. Shapes stay. A convolution's
 * weight [h, w, C, O] is the matrix [h·w·C, O]; the papers have a root for every one of its dimensions.
 *
 * - A side larger than `largest` has no root, and the other one has the exponent −1/2, as in Anil et al.'s code; if both are
 *   larger, G passes.
 * - Weights of rank ≤ 1 pass; with `exclude: () => false` they have R^(−1/2), which is Gupta et al.'s case of order 1.
 * - `graft: 'gradient'` gives P the length of G, so that learning rates are those of SGD, and of the biases. `'none'` is
 *   Gupta et al.'s: after one step P is about U·Vᵀ of G = U·Σ·Vᵀ, of length √rank, for a rate that then falls by itself.
 * - ε is relative, as in Anil et al.'s code; Gupta et al. start from L = ε·I.
 *
 * A `gradient` link: it stands before {@link sgd}, which has the learning rate and the momentum, and after a link that sums gradients over ranks,
 * since it is not linear in G. Not with Adam. Biased, as every rescaling of a stochastic gradient by itself.
 *
 * Defaults: β = 0.95, ε = 1e-6, roots in every 10th step, grafting. State: `shampoo/L/<weight>`, `shampoo/R/<weight>`, the
 * roots in use `shampoo/rootL/<weight>` and `shampoo/rootR/<weight>`, and `shampoo/total`, a number of the host. Cost: 2·m·n·(m + n)
 * multiply-adds per step and matrix; where roots are computed about 9·(m³ + n³) in double precision and a copy to the main
 * memory. Memory: 2·(m² + n²).
 *
 * Source: Gupta, Koren, Singer 2018, arXiv 1802.09568, Algorithms 1 and 2; Anil, Gupta, Koren, Regan, Singer 2020, arXiv
 * 2002.09018 (grafting, stale roots, one side).
 *
 * @experimental Checked against its equations and on small problems; not yet on the papers' benchmarks.
 * @throws `CONFIG` for an unknown option or a value outside its range (a schedule's: when read, with its step), and under
 * `fit` without `await optimizer.prepare()`, which loads the linear algebra; `NON_FINITE` for a gradient that is not finite
 * @example
 * ```ts
 * await train(model, data, { optimizer: [shampoo(), sgd({ learningRate: 0.05, momentum: 0.9 })], epochs: 5 });
 * ```
 */
export function shampoo(options: ShampooOptions = {}): GradientLink {
  const settings = settle(options);
  return {
    kind: 'gradient',
    name: 'shampoo',
    open({ params }) {
      const roots = openRoots(settings, params);
      return {
        prepare: roots.prepare,
        transform(gradients, { clock }) {
          const result = new Map(gradients);
          const folded = params.flatMap((param) => {
            const g = gradients.get(param.name);
            const of = roots.of(param);
            return g && of.sides.length > 0 ? [[of, g] as const] : [];
          });
          roots.advance(folded, clock);
          for (const [of, g] of folded) result.set(of.name, precondition(g, of, settings.grafts));
          return result;
        },
        state: roots.state,
        hyperparameters: ({ clock }) => ({ beta: settings.beta(clock) }),
        dispose: roots.dispose,
      };
    },
  };
}
