import {
  checkInteger,
  checkOptions,
  type Clock,
  type Hyper,
  hyper,
  movingAverage,
  type Param,
  type Schedule,
  type UpdateLink,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { type Corrections, correctionState } from './corrections.js';
import { type DecayFilter, decayFilter } from './decay.js';
import { betweenSides, type Folded, foldTensor, openSides, outer, type SideFilter } from './kronecker.js';
import { openSlots } from './slots.js';

/** Options of {@link soap}. */
export interface SoapOptions {
  /** η ≥ 0. Default 3e-3 (the paper's code). */
  readonly learningRate?: Hyper;
  /** β1 in [0, 1). Default 0.95 (the paper). */
  readonly beta1?: Hyper;
  /** β2 in [0, 1). Default 0.95 (the paper). */
  readonly beta2?: Hyper;
  /** In [0, 1): what averages of G·Gᵀ keep in one step. Default 0.95; the paper has β2 there. */
  readonly shampooBeta?: Hyper;
  /** ε > 0, added to √v. Default 1e-8 (the paper). */
  readonly epsilon?: Hyper;
  /** λ ≥ 0, decoupled: the weight also loses η·λ·w. Default 0.01 (the paper's code). */
  readonly weightDecay?: Hyper;
  /** Which weights decay. Default: those of rank ≥ 2, so that biases and gains do not. */
  readonly decay?: DecayFilter;
  /** Bases are computed anew in every so many steps, by number or schedule. Default 10 (the paper). */
  readonly every?: Hyper;
  /** A side that is larger is not rotated: a decomposition takes O(n³). Default 2048. */
  readonly largest?: number;
}

const SCHEDULES = ['learningRate', 'beta1', 'beta2', 'shampooBeta', 'epsilon', 'weightDecay', 'every'] as const;

type Values = Readonly<Record<(typeof SCHEDULES)[number], number>>;

const DEFAULTS: Values = {
  learningRate: 3e-3,
  beta1: 0.95,
  beta2: 0.95,
  shampooBeta: 0.95,
  epsilon: 1e-8,
  weightDecay: 0.01,
  every: 10,
};

const UNIT = { min: 0, max: 1, belowMax: true };

const RANGES: Readonly<Record<keyof Values, object>> = {
  learningRate: { min: 0 },
  beta1: UNIT,
  beta2: UNIT,
  shampooBeta: UNIT,
  epsilon: { min: 0, aboveMin: true },
  weightDecay: { min: 0 },
  every: { min: 1 },
};

type Schedules = Readonly<Record<keyof Values, Schedule>>;

function schedulesOf(options: SoapOptions): Schedules {
  const schedules = SCHEDULES.map((name): [string, Schedule] => [
    name,
    hyper('soap', name, options[name] ?? DEFAULTS[name], RANGES[name]),
  ]);
  return Object.fromEntries(schedules) as Schedules;
}

const valuesAt = (schedules: Schedules, clock: Clock): Values =>
  Object.fromEntries(SCHEDULES.map((name) => [name, schedules[name](clock)])) as Values;

/** Corrections of a step. */
interface StepCorrections {
  /** Of weights that move from the first step on. */
  readonly plain: Corrections;
  /** Of those that are rotated, which move from the second. */
  readonly rotated?: Corrections;
}

/** The corrections of a run. */
function twoCorrections() {
  const [plain, rotated] = [correctionState(), correctionState()];
  return {
    /** Counts a step. */
    advance(beta1: number, beta2: number): StepCorrections {
      // 1 − Π β2, which is 0 before the first step only.
      const first = plain.kept[1] === 0;
      const result = { plain: plain.advance(beta1, beta2) };
      return first ? result : { ...result, rotated: rotated.advance(beta1, beta2) };
    },
    state: [
      ['soap/corrections', plain.kept],
      ['soap/rotatedCorrections', rotated.kept],
    ] as const,
  };
}

/** N of one weight, in its shape; moves its moments. */
function direction(
  g: tf.Tensor,
  [m, v]: readonly [tf.Variable, tf.Variable],
  folded: Folded,
  { beta1, beta2, epsilon }: Values,
  { first, second }: Corrections,
): tf.Tensor {
  const rotate = (x: tf.Tensor): tf.Tensor => tf.reshape(betweenSides(foldTensor(x, folded), folded, true), g.shape);
  movingAverage(m, g, beta1);
  movingAverage(v, tf.square(rotate(g)), beta2);
  const scale = tf.add(tf.sqrt(tf.div(v, second)), epsilon);
  const move = tf.div(tf.div(rotate(m), first), scale);
  return tf.reshape(betweenSides(foldTensor(move, folded), folded), g.shape);
}

/** What a run of SOAP keeps, and the move of one weight. */
function openState(decays: DecayFilter, largest: number, params: readonly Param[]) {
  const slots = openSlots('soap', ['m', 'v'], params);
  const corrections = twoCorrections();
  const turns: SideFilter = ({ value }, _side, size) => value.shape.length >= 2 && size > 1 && size <= largest;
  const sides = openSides('soap', 'basis', turns, params);
  return {
    corrections,
    sides,
    /** Moves the moments of a weight and the weight itself, then its L and R. One that is rotated stays in its first step. */
    move(param: Param, g: tf.Tensor, values: Values, { plain, rotated }: StepCorrections): void {
      const folded = sides.of(param);
      const moments = [slots.get('m', param), slots.get('v', param)] as const;
      const correction = folded.sides.length === 0 ? plain : rotated;
      const n = correction && direction(g, moments, folded, values, correction);
      for (const side of folded.sides) movingAverage(side.sum, outer(foldTensor(g, folded), side), values.shampooBeta);
      if (!n) return;
      const lambda = decays(param) ? values.weightDecay : 0;
      const step = lambda === 0 ? n : tf.add(n, tf.mul(param.value, lambda));
      param.value.assign(tf.add(param.value, tf.mul(step, -values.learningRate)));
    },
    state: () =>
      new Map<string, tf.Variable | Float64Array>([...slots.state(), ...sides.state(), ...corrections.state]),
    dispose: () => [slots, sides].forEach((part) => part.dispose()),
  };
}

/**
 * SOAP: Adam in the eigenbasis of Shampoo's L and R. For the gradient G [m, n] of a weight:
 *
 *   G' = Q_Lᵀ·G·Q_R;   M ← β1·M + (1 − β1)·G;   V ← β2·V + (1 − β2)·G'²
 *   N = Q_L·(M̂' / (√V̂ + ε))·Q_Rᵀ,   M̂' = Q_Lᵀ·M·Q_R / (1 − Π β1),   V̂ = V / (1 − Π β2);   W ← W − η·N − η·λ·W
 *   L ← β·L + (1 − β)·G·Gᵀ [m, m],   R ← β·R + (1 − β)·Gᵀ·G [n, n];   in every `every`-th step Q_L, Q_R ← their eigenvectors
 *
 * Shapes stay. A convolution's weight [h, w, C, O] is the matrix [h·w·C, O]. Weights of rank ≤ 1 are not rotated, nor is
 * a side larger than `largest`, or of size 1; without any rotation this is `adamw`.
 *
 * Where it is not the paper's Algorithm 3: all of Q is computed by a full symmetric decomposition, eigenvalues in order,
 * instead of one step of power iteration and QR, which approximates that; V is not rotated along with Q in either. As in the
 * paper's code, the first step only makes L, R and Q for weights that are rotated, which stay as they are: Q of the same
 * gradient would make G' diagonal. Adam's ε is added to the corrected √V̂, as everywhere here; the paper's code adds it before.
 *
 * Where L or R is singular, as after few examples, a part of its basis is arbitrary and differs between libraries, and so do
 * runs; a run that is resumed has the bases that it had.
 *
 * An `update` link: it stands after a link that sums gradients over ranks. Biased, as Adam.
 *
 * Defaults: η = 3e-3, λ = 0.01 and all β = 0.95, ε = 1e-8, bases in every 10th step: the paper's and its code's. State:
 * `soap/m/<weight>`, `soap/v/<weight>`, `soap/L/<weight>`, `soap/R/<weight>`, the bases in use `soap/basisL/<weight>` and
 * `soap/basisR/<weight>`, `soap/corrections` and `soap/rotatedCorrections`, numbers of the host. Cost: 4·m·n·(m + n) multiply-adds per step
 * and matrix; where bases are computed about 9·(m³ + n³) in double precision and a copy to the main memory. Memory:
 * 2·m·n + 2·(m² + n²).
 *
 * Source: Vyas, Morwani, Zhao, Shapira, Brandfonbrener, Janson, Kakade 2024, arXiv 2409.11321, Algorithm 3.
 *
 * @experimental Checked against its equations and on small problems; not yet on the paper's benchmarks.
 * @throws `CONFIG` for an unknown option or a value outside its range (a schedule's: when read, with its step), and under
 * `fit` without `await optimizer.prepare()`, which loads the linear algebra; `NON_FINITE` for a gradient that is not finite
 * @example
 * ```ts
 * await train(model, data, { optimizer: soap({ learningRate: cosine({ initial: 3e-3 }) }), epochs: 5 });
 * ```
 */
export function soap(options: SoapOptions = {}): UpdateLink {
  checkOptions('soap', options, [...SCHEDULES, 'decay', 'largest']);
  const schedules = schedulesOf(options);
  const largest = checkInteger('soap', 'largest', options.largest ?? 2048, { min: 1 });
  const decays = decayFilter('soap', options.decay);
  return {
    kind: 'update',
    name: 'soap',
    rateOf: () => schedules.learningRate,
    open({ params }) {
      const { corrections, sides, move, state, dispose } = openState(decays, largest, params);
      return {
        prepare: sides.prepare,
        apply(gradients, { clock }) {
          const values = valuesAt(schedules, clock);
          const step = corrections.advance(values.beta1, values.beta2);
          for (const param of params) {
            const g = gradients.get(param.name);
            if (g) move(param, g, values, step);
          }
          const every = Math.max(1, Math.round(values.every));
          if (!step.rotated || clock.step % every === 0)
            sides.decompose(({ vectors: { data, rows } }) => tf.tensor2d(data as Float32Array, [rows, rows]));
        },
        state,
        hyperparameters({ clock }) {
          const { learningRate, beta1, beta2, weightDecay } = valuesAt(schedules, clock);
          return { learningRate, beta1, beta2, ...(options.weightDecay !== 0 && { weightDecay }) };
        },
        dispose,
      };
    },
  };
}
