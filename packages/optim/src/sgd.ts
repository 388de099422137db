import {
  checkOptions,
  FrugalError,
  type Hyper,
  hyper,
  type LocalTransform,
  type Param,
  type Schedule,
  type Scope,
  sgdUpdate,
  type Updates,
} from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';
import { type DecayFilter, decayFilter } from './decay.js';
import { createSlots } from './slots.js';

/** Options of {@link sgd}. */
export interface SgdOptions {
  /** η ≥ 0. */
  readonly learningRate: Hyper;
  /** μ in [0, 1). Default 0: no velocity is kept. */
  readonly momentum?: Hyper;
  /** Look ahead: step along g + μv instead of v. Default false. */
  readonly nesterov?: boolean;
  /** λ ≥ 0, decoupled: the weight also loses η·λ·w. Default 0. */
  readonly weightDecay?: Hyper;
  /** Which weights decay. Default: those of rank ≥ 2, so that biases and gains do not. */
  readonly decay?: DecayFilter;
}

const KNOWN = ['learningRate', 'momentum', 'nesterov', 'weightDecay', 'decay'];

/** What the hyper-parameters are at one step. */
interface Values {
  readonly learningRate: number;
  readonly momentum: number;
  readonly nesterov: boolean;
  readonly weightDecay: number;
}

interface Settings {
  readonly learningRate: Schedule;
  readonly momentum: Schedule;
  readonly weightDecay: Schedule;
  readonly nesterov: boolean;
  readonly decays: DecayFilter;
  /** Is there a velocity at all? */
  readonly moving: boolean;
  readonly decaying: boolean;
}

function settle(options: SgdOptions): Settings {
  checkOptions('sgd', options, KNOWN);
  const { momentum = 0, nesterov = false, weightDecay = 0 } = options;
  if (typeof nesterov !== 'boolean') {
    throw new FrugalError('CONFIG', `sgd: expected nesterov to be true or false but received ${String(nesterov)}.`);
  }
  if (nesterov && momentum === 0) {
    throw new FrugalError('CONFIG', 'sgd: expected a momentum with nesterov but received 0. Set momentum, as in 0.9.');
  }
  return {
    learningRate: hyper('sgd', 'learningRate', options.learningRate, { min: 0 }),
    momentum: hyper('sgd', 'momentum', momentum, { min: 0, max: 1, belowMax: true }),
    weightDecay: hyper('sgd', 'weightDecay', weightDecay, { min: 0 }),
    nesterov,
    decays: decayFilter('sgd', options.decay),
    moving: momentum !== 0,
    decaying: weightDecay !== 0,
  };
}

/** ΔW of one weight; moves its velocity. */
function difference(g: tf.Tensor, w: tf.Variable, v: tf.Variable | undefined, values: Values): tf.Tensor {
  const { learningRate, momentum, nesterov, weightDecay } = values;
  v?.assign(v.mul(momentum).add(g));
  const ahead = v && nesterov ? g.add(v.mul(momentum)) : v;
  const step = (ahead ?? g).mul(-learningRate);
  return weightDecay === 0 ? step : step.sub(w.mul(learningRate * weightDecay));
}

/**
 * Stochastic gradient descent with heavy-ball or Nesterov momentum and decoupled weight decay:
 *
 *   v ← μ·v + g;   d = nesterov ? g + μ·v : v;   w ← w − η·d − η·λ·w.
 *
 * g, v and w have the shape of the weight. This is PyTorch's convention: η stands outside of v, and there is no
 * dampening (1 − μ). The Demon paper puts η inside, v' ← μ·v' − η·g and w ← w + v'; with a constant η the two are
 * the same (v' = −η·v). When η changes, here old gradients are stepped along with the new η, there with their old one.
 * Weight decay is decoupled (arXiv 1711.05101), unlike PyTorch's SGD, which adds λ·w to g.
 *
 * Defaults: μ = 0, no Nesterov, λ = 0, as in PyTorch. State: `sgd/velocity/<weight>`, one Variable per weight; none
 * if momentum is the number 0. Cost: about 6 FLOP per weight, one pass over memory where the engine has a fused kernel.
 *
 * Source: Sutskever et al. 2013 (ICML), as in torch.optim.SGD. Must be the last link of a chain.
 *
 * @throws `CONFIG` for an unknown option, a value outside its range (a schedule's: when read, with its step), or
 * `nesterov` with momentum 0
 * @example
 * ```ts
 * sgd({ learningRate: '0.1 * (1 - t)^0.9', momentum: demon(), weightDecay: 5e-4 });
 * ```
 */
export function sgd(options: SgdOptions): LocalTransform {
  const settings = settle(options);
  const { decays, moving, decaying, nesterov } = settings;
  const slots = createSlots('sgd', moving ? ['velocity'] : []);
  const read = ({ clock }: Scope): Values => ({
    learningRate: settings.learningRate(clock),
    momentum: settings.momentum(clock),
    weightDecay: settings.weightDecay(clock),
    nesterov,
  });
  const each = (
    updates: Updates,
    params: readonly Param[],
    scope: Scope,
    visit: (param: Param, g: tf.Tensor, v: tf.Variable | undefined, values: Values) => void,
  ): void => {
    const values = read(scope);
    for (const param of params) {
      const g = updates.get(param.name);
      const v = moving ? slots.get('velocity', param) : undefined;
      if (g) visit(param, g, v, decays(param) ? values : { ...values, weightDecay: 0 });
    }
  };
  return {
    kind: 'local',
    name: 'sgd',
    init: (params) => slots.init(params),
    update(updates, params, scope) {
      const deltas = new Map<string, tf.Tensor>();
      each(updates, params, scope, ({ name, value }, g, v, values) => {
        deltas.set(name, difference(g, value, v, values));
      });
      return deltas;
    },
    apply: (updates, params, scope) => each(updates, params, scope, ({ value }, g, v, h) => sgdUpdate(value, g, v, h)),
    state: () => slots.state(),
    hyperparameters(scope) {
      const { learningRate, momentum, weightDecay } = read(scope);
      return { learningRate, momentum, ...(decaying && { weightDecay }) };
    },
    dispose: () => slots.dispose(),
  };
}
