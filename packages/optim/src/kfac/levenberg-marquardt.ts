import { checkInteger, checkNumber, checkOptions, type Param, type Scope, type Step } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { FactorPair } from './factors.js';
import { gradientOf, type Layer } from './layers.js';

/** Options of {@link levenbergMarquardt}. */
export interface LevenbergMarquardtOptions {
  /** γ of the first step, > 0. Default 0.1. */
  readonly initial?: number;
  /** T: steps between two adaptations. Default 5. */
  readonly every?: number;
  /** ω in (0, 1): γ changes by ω^T or its inverse. Default 19/20. */
  readonly omega?: number;
  /** Smallest γ, > 0. Default 1e-6. */
  readonly min?: number;
  /** Largest γ. Default 10. */
  readonly max?: number;
}

/** Damping that adapts; made by {@link levenbergMarquardt}. */
export interface LevenbergMarquardt extends Required<LevenbergMarquardtOptions> {
  /** What tells it from a number or a schedule. */
  readonly kind: 'levenbergMarquardt';
}

/**
 * Damping for {@link kfac} that follows how well the quadratic model predicts the loss. After every T-th step, on its batch,
 *
 *   ρ = (loss(w + δ) − loss(w)) / M(δ),  M(δ) = ∇ᵀδ + ½·δᵀ(F + γ·I)δ,  F block-wise A ⊗ G;
 *   ρ > ¾: γ ← ω^T·γ;  ρ < ¼, or M(δ) ≥ 0: γ ← γ / ω^T,
 *
 * within [min, max]. δ is what the whole chain did to the weights, momentum and learning rate included. Samples and dropout draw
 * the same in both evaluations.
 *
 * Cost: two forward passes and a copy of the weights and gradients, each T-th step. State: γ. Needs `train` or `stepper`, and one rank.
 * Defaults: T = 5 and ω = 19/20 are the paper's; it starts at γ = 150 for sums of squares of deep autoencoders, which is far
 * too much for classifiers. The paper has the exact F in M(δ); A ⊗ G is ours, as it is at hand.
 *
 * Source: Martens and Grosse 2015, Optimizing Neural Networks with Kronecker-factored Approximate Curvature, arXiv
 * 1503.05671, section 6.5.
 *
 * @throws FrugalError `CONFIG` for an unknown option or a value outside its range
 * @example
 * ```ts
 * kfac({ damping: levenbergMarquardt({ initial: 0.03 }) });
 * ```
 */
export function levenbergMarquardt(options: LevenbergMarquardtOptions = {}): LevenbergMarquardt {
  const owner = 'levenbergMarquardt';
  checkOptions(owner, options, ['initial', 'every', 'omega', 'min', 'max']);
  const min = checkNumber(owner, 'min', options.min ?? 1e-6, { min: 0, aboveMin: true });
  const max = checkNumber(owner, 'max', options.max ?? 10, { min });
  return {
    kind: 'levenbergMarquardt',
    initial: checkNumber(owner, 'initial', options.initial ?? 0.1, { min, max }),
    every: checkInteger(owner, 'every', options.every ?? 5, { min: 1 }),
    omega: checkNumber(owner, 'omega', options.omega ?? 19 / 20, { min: 0, max: 1, aboveMin: true, belowMax: true }),
    min,
    max,
  };
}

/** Is a value of the option `damping` one that adapts? */
export function isAdaptive(damping: unknown): damping is LevenbergMarquardt {
  return (damping as { kind?: unknown } | null)?.kind === 'levenbergMarquardt';
}

/** γ that adapts in one run. */
export interface AdaptiveDamping {
  /** γ of now. */
  value(): number;
  /** γ, as checkpoints keep it. */
  readonly kept: Float64Array;
  /** Remembers the loss and the weights of a step whose end will be looked at. */
  before(step: Step): void;
  /** Remembers the gradients of a step whose end will be looked at. */
  observe(gradients: ReadonlyMap<string, tf.Tensor>, scope: Scope): void;
  /** Adapts γ, and forgets the step. */
  after(step: Step): void;
  dispose(): void;
}

/** δᵀ·(A ⊗ G)·δ = Σ δ ⊙ (A·δ·G). */
const curvature = (delta: tf.Tensor2D, { a, g }: FactorPair): tf.Tensor =>
  tf.sum(tf.mul(delta, tf.matMul(tf.matMul(a as tf.Tensor2D, delta), g as tf.Tensor2D)));

/** M(δ) = ∇ᵀδ + ½·δᵀ(F + γ·I)δ. Inside `tf.tidy`. */
function predictedChange(
  deltas: ReadonlyMap<string, tf.Tensor>,
  gradients: ReadonlyMap<string, tf.Tensor>,
  layers: readonly Layer[],
  factors: readonly FactorPair[],
  gamma: number,
): number {
  const linear = [...gradients].map(([name, gradient]) => tf.sum(tf.mul(gradient, deltas.get(name) as tf.Tensor)));
  const quadratic = layers.map((layer, i) =>
    curvature(gradientOf(layer, deltas) as tf.Tensor2D, factors[i] as FactorPair),
  );
  const lengths = [...deltas.values()].map((delta) => tf.mul(gamma, tf.sum(tf.square(delta))));
  return tf.add(tf.addN(linear), tf.mul(0.5, tf.addN([...quadratic, ...lengths]))).dataSync()[0] as number;
}

/** γ after a step that changed the loss by `change` where the model said `predicted`. */
export function adapted(gamma: number, change: number, predicted: number, rules: LevenbergMarquardt): number {
  const { every, omega, min, max } = rules;
  const ratio = change / predicted;
  const factor = predicted >= 0 || ratio < 0.25 ? omega ** -every : ratio > 0.75 ? omega ** every : 1;
  return Math.min(max, Math.max(min, gamma * factor));
}

/** What is remembered of a step until its end: tensors that `forget` frees. */
function createMemory() {
  let loss: number | undefined;
  const weights = new Map<string, tf.Tensor>();
  const gradients = new Map<string, tf.Tensor>();
  const fill = (into: Map<string, tf.Tensor>, from: ReadonlyMap<string, tf.Tensor>): void => {
    tf.dispose([...into.values()]);
    into.clear();
    for (const [name, tensor] of from) into.set(name, tf.keep(tensor.clone()));
  };
  return {
    weights,
    gradients,
    get loss() {
      return loss;
    },
    start(value: number, of: ReadonlyMap<string, tf.Tensor>): void {
      loss = value;
      fill(weights, of);
    },
    observe: (of: ReadonlyMap<string, tf.Tensor>): void => fill(gradients, of),
    forget(): void {
      loss = undefined;
      for (const map of [weights, gradients]) fill(map, new Map());
    },
  };
}

type Memory = ReturnType<typeof createMemory>;

/** What the quadratic model is of. */
export interface Subject {
  readonly layers: readonly Layer[];
  readonly factors: () => readonly FactorPair[];
  readonly params: readonly Param[];
}

/** The loss with the weights as they are; both of a step draw the same samples and masks. */
function lossOf({ pass }: Step): number {
  const loss = pass().loss();
  const [value] = loss.dataSync();
  loss.dispose();
  return value as number;
}

/** γ after the step that is remembered. */
function adaptedTo(gamma: number, loss: number, memory: Memory, subject: Subject, rules: LevenbergMarquardt): number {
  const change = loss - (memory.loss as number);
  return tf.tidy(() => {
    const deltas = new Map(
      subject.params.map(({ name, value }) => [name, tf.sub(value, memory.weights.get(name) as tf.Tensor)]),
    );
    const predicted = predictedChange(deltas, memory.gradients, subject.layers, subject.factors(), gamma);
    return adapted(gamma, change, predicted, rules);
  }) as unknown as number;
}

/** Opens damping that adapts by these rules. */
export function openAdaptiveDamping(rules: LevenbergMarquardt, subject: Subject): AdaptiveDamping {
  const kept = Float64Array.of(rules.initial);
  const memory = createMemory();
  const value = (): number => kept[0] as number;
  const due = ({ clock }: Scope): boolean => (clock.step + 1) % rules.every === 0;
  return {
    value,
    kept,
    before(step) {
      if (due(step.scope))
        memory.start(lossOf(step), new Map(subject.params.map((param) => [param.name, param.value])));
    },
    observe(gradients, scope) {
      if (due(scope)) memory.observe(gradients);
    },
    after(step) {
      if (memory.loss !== undefined && memory.gradients.size > 0)
        kept[0] = adaptedTo(value(), lossOf(step), memory, subject, rules);
      memory.forget();
    },
    dispose: () => memory.forget(),
  };
}
