import {
  adamUpdate,
  checkChoice,
  type Hyper,
  hyper,
  type LocalTransform,
  type Param,
  type Schedule,
  type Scope,
  type Updates,
} from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';
import { correctionState } from './corrections.js';
import type { DecayFilter } from './decay.js';
import { createSlots, type Slots } from './slots.js';

/** How Adam's first moment is written: a running mean, or a running sum as in Demon Adam. */
export type AdamForm = 'ema' | 'sum';

/** Options that Adam and AdamW share. */
export interface AdamOptions {
  /** η ≥ 0. Default 1e-3 (the Adam paper). With `form: 'sum'`, take about (1 − β1) of it. */
  readonly learningRate?: Hyper;
  /** β1 in [0, 1). Default 0.9 (the Adam paper). */
  readonly beta1?: Hyper;
  /** β2 in [0, 1). Default 0.999 (the Adam paper). */
  readonly beta2?: Hyper;
  /** ε > 0, added to √v. Default 1e-8 (the Adam paper). */
  readonly epsilon?: Hyper;
  /** `'ema'`: m ← β1·m + (1 − β1)·g. `'sum'`: m ← β1·m + g, for a scheduled β1. Default `'ema'`. */
  readonly form?: AdamForm;
}

/** What Adam and AdamW hand to {@link adaptive}. */
export interface AdaptiveOptions extends AdamOptions {
  readonly weightDecay: Hyper;
  readonly decays: DecayFilter;
}

/** The names of {@link AdamOptions}. */
export const ADAM_OPTIONS = ['learningRate', 'beta1', 'beta2', 'epsilon', 'form'];

interface Values {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
}

/** {@link Values} and what the state adds to them at a step. */
interface Step extends Values {
  readonly gain: number;
  readonly correction1: number;
  readonly correction2: number;
}

function reader(owner: string, options: AdaptiveOptions): (scope: Scope) => Values {
  const { learningRate = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay } = options;
  const unit = { min: 0, max: 1, belowMax: true };
  const schedules: Record<keyof Values, Schedule> = {
    learningRate: hyper(owner, 'learningRate', learningRate, { min: 0 }),
    beta1: hyper(owner, 'beta1', beta1, unit),
    beta2: hyper(owner, 'beta2', beta2, unit),
    epsilon: hyper(owner, 'epsilon', epsilon, { min: 0, aboveMin: true }),
    weightDecay: hyper(owner, 'weightDecay', weightDecay, { min: 0 }),
  };
  return ({ clock }) => ({
    learningRate: schedules.learningRate(clock),
    beta1: schedules.beta1(clock),
    beta2: schedules.beta2(clock),
    epsilon: schedules.epsilon(clock),
    weightDecay: schedules.weightDecay(clock),
  });
}

/** ΔW of one weight; moves its moments. */
function difference(g: tf.Tensor, w: tf.Variable, m: tf.Variable, v: tf.Variable, step: Step): tf.Tensor {
  m.assign(m.mul(step.beta1).add(g.mul(step.gain)));
  v.assign(v.mul(step.beta2).add(g.square().mul(1 - step.beta2)));
  const scale = v.div(step.correction2).sqrt().add(step.epsilon);
  const move = m.mul(-step.learningRate / step.correction1).div(scale);
  return step.weightDecay === 0 ? move : move.sub(w.mul(step.learningRate * step.weightDecay));
}

type Visit = (param: Param, g: tf.Tensor, m: tf.Variable, v: tf.Variable, step: Step) => void;

/** Walks the weights that have a gradient, with their moments and the numbers of the step. */
function walker(options: AdaptiveOptions, slots: Slots, advance: (scope: Scope) => Step) {
  return (updates: Updates, params: readonly Param[], scope: Scope, visit: Visit): void => {
    const step = advance(scope);
    for (const param of params) {
      const g = updates.get(param.name);
      const [m, v] = [slots.get('m', param), slots.get('v', param)];
      if (g) visit(param, g, m, v, options.decays(param) ? step : { ...step, weightDecay: 0 });
    }
  };
}

/** The transform behind `adam` and `adamw`; its state is named after `owner`. Checks the values, not the names, of options. */
export function adaptive(owner: string, options: AdaptiveOptions): LocalTransform {
  const read = reader(owner, options);
  const sums = checkChoice(owner, 'form', options.form ?? 'ema', ['ema', 'sum']) === 'sum';
  const slots = createSlots(owner, ['m', 'v']);
  const corrections = correctionState(owner);
  const each = walker(options, slots, (scope) => {
    const values = read(scope);
    const { first, second } = corrections.advance(values.beta1, values.beta2);
    return { ...values, gain: sums ? 1 : 1 - values.beta1, correction1: sums ? 1 : first, correction2: second };
  });
  return {
    kind: 'local',
    name: owner,
    init(params) {
      slots.init(params);
      corrections.init();
    },
    update(updates, params, scope) {
      const deltas = new Map<string, tf.Tensor>();
      each(updates, params, scope, ({ name, value }, g, m, v, step) => {
        deltas.set(name, difference(g, value, m, v, step));
      });
      return deltas;
    },
    apply: (updates, params, scope) => each(updates, params, scope, ({ value }, ...rest) => adamUpdate(value, ...rest)),
    state() {
      const variable = corrections.variable();
      return variable ? slots.state().set(`${owner}/corrections`, variable) : slots.state();
    },
    hyperparameters(scope) {
      const { learningRate, beta1, beta2, weightDecay } = read(scope);
      return { learningRate, beta1, beta2, ...(options.weightDecay !== 0 && { weightDecay }) };
    },
    dispose() {
      slots.dispose();
      corrections.dispose();
    },
  };
}
