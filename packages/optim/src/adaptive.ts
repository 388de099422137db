import { adamUpdate, checkChoice, type Clock, type Hyper, hyper, type Schedule, type UpdateLink } from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';
import { correctionState } from './corrections.js';
import type { DecayFilter } from './decay.js';
import { openSlots } from './slots.js';

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

const VALUES = ['learningRate', 'beta1', 'beta2', 'epsilon', 'weightDecay'] as const;

type Schedules = Readonly<Record<(typeof VALUES)[number], Schedule>>;
type Values = Readonly<Record<(typeof VALUES)[number], number>>;

function schedulesOf(owner: string, options: AdaptiveOptions): Schedules {
  const { learningRate = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay } = options;
  const unit = { min: 0, max: 1, belowMax: true };
  return {
    learningRate: hyper(owner, 'learningRate', learningRate, { min: 0 }),
    beta1: hyper(owner, 'beta1', beta1, unit),
    beta2: hyper(owner, 'beta2', beta2, unit),
    epsilon: hyper(owner, 'epsilon', epsilon, { min: 0, aboveMin: true }),
    weightDecay: hyper(owner, 'weightDecay', weightDecay, { min: 0 }),
  };
}

const valuesAt = (schedules: Schedules, clock: Clock): Values =>
  Object.fromEntries(VALUES.map((name) => [name, schedules[name](clock)])) as Values;

/** The update behind `adam` and `adamw`; its state is named after `owner`. Checks the values, not the names, of options. */
export function adaptive(owner: string, options: AdaptiveOptions): UpdateLink {
  const schedules = schedulesOf(owner, options);
  const sums = checkChoice(owner, 'form', options.form ?? 'ema', ['ema', 'sum']) === 'sum';
  return {
    kind: 'update',
    name: owner,
    rateOf: () => schedules.learningRate,
    open({ params }) {
      const slots = openSlots(owner, ['m', 'v'], params);
      const corrections = correctionState();
      return {
        apply(gradients, { clock }) {
          const values = valuesAt(schedules, clock);
          const { first, second } = corrections.advance(values.beta1, values.beta2);
          const gain = sums ? 1 : 1 - values.beta1;
          const step = { ...values, gain, correction1: sums ? 1 : first, correction2: second };
          for (const param of params) {
            const g = gradients.get(param.name);
            const numbers = options.decays(param) ? step : { ...step, weightDecay: 0 };
            if (g) adamUpdate(param.value, g, slots.get('m', param), slots.get('v', param), numbers);
          }
        },
        state: () =>
          new Map<string, tf.Variable | Float64Array>([...slots.state(), [`${owner}/corrections`, corrections.kept]]),
        hyperparameters({ clock }) {
          const { learningRate, beta1, beta2, weightDecay } = valuesAt(schedules, clock);
          return { learningRate, beta1, beta2, ...(options.weightDecay !== 0 && { weightDecay }) };
        },
        dispose: slots.dispose,
      };
    },
  };
}
