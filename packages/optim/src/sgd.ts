import {
  checkOptions,
  FrugalError,
  type Hyper,
  hyper,
  type Schedule,
  type SgdHyper,
  sgdUpdate,
  show,
  type UpdateLink,
} from '@frugal/core';
import { type DecayFilter, decayFilter } from './decay.js';
import { openSlots } from './slots.js';

/** Options of {@link sgd}. */
export interface SgdOptions {
  /** η ≥ 0. */
  readonly learningRate: Hyper;
  /** μ in [0, 1). Default 0: no velocity is kept. */
  readonly momentum?: Hyper;
  /** Look ahead: step along h + μv instead of v. Default false. */
  readonly nesterov?: boolean;
  /** λ ≥ 0: λ·w joins the gradient, as in torch.optim.SGD and in papers' recipes. Default 0. */
  readonly weightDecay?: Hyper;
  /**
   * Take λ past the velocity instead, so that the weight loses η·λ·w (Loshchilov and Hutter's SGDW). With momentum μ that is
   * 1 − μ times as much as λ does in the gradient. Default false.
   */
  readonly decoupled?: boolean;
  /** Which weights decay. Default: those of rank ≥ 2, so that biases and gains do not. */
  readonly decay?: DecayFilter;
}

const KNOWN = ['learningRate', 'momentum', 'nesterov', 'weightDecay', 'decoupled', 'decay'];

interface Settings {
  readonly learningRate: Schedule;
  readonly momentum: Schedule;
  readonly weightDecay: Schedule;
  readonly nesterov: boolean;
  readonly decoupled: boolean;
  readonly decays: DecayFilter;
  /** Is there a velocity at all? */
  readonly moving: boolean;
  readonly decaying: boolean;
}

function flag(name: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw new FrugalError('CONFIG', `sgd: expected ${name} to be true or false but received ${show(value)}.`);
}

function settle(options: SgdOptions): Settings {
  checkOptions('sgd', options, KNOWN);
  const { momentum = 0, weightDecay = 0 } = options;
  const nesterov = flag('nesterov', options.nesterov ?? false);
  if (nesterov && momentum === 0) {
    throw new FrugalError('CONFIG', 'sgd: expected a momentum with nesterov but received 0. Set momentum, as in 0.9.');
  }
  return {
    learningRate: hyper('sgd', 'learningRate', options.learningRate, { min: 0 }),
    momentum: hyper('sgd', 'momentum', momentum, { min: 0, max: 1, belowMax: true }),
    weightDecay: hyper('sgd', 'weightDecay', weightDecay, { min: 0 }),
    nesterov,
    decoupled: flag('decoupled', options.decoupled ?? false),
    decays: decayFilter('sgd', options.decay),
    moving: momentum !== 0,
    decaying: weightDecay !== 0,
  };
}

/**
 * Stochastic gradient descent with heavy-ball or Nesterov momentum and weight decay:
 *
 *   h = g + λ·w;   v ← μ·v + h;   d = nesterov ? h + μ·v : v;   w ← w − η·d.
 *
 * g, h, v and w have the shape of the weight. This is PyTorch's convention: η stands outside of v, there is no
 * dampening (1 − μ), and λ·w joins the gradient. The Demon paper puts η inside, v' ← μ·v' − η·g and w ← w + v'; with a
 * constant η the two are the same (v' = −η·v). When η changes, here old gradients are stepped along with the new η, there with
 * their old one.
 *
 * Weight decay means the same in {@link lars} and in all decentralized links. Since λ·w passes through the velocity, a weight
 * without gradient loses η·λ/(1 − μ) of itself per step: ten times η·λ for μ = 0.9. `decoupled: true` takes it past the velocity,
 * h = g and w ← w − η·d − η·λ·w, as {@link adamw} and {@link soap} do always (arXiv 1711.05101); for the same pull λ is
 * 1/(1 − μ) times as large there.
 *
 * Defaults: μ = 0, no Nesterov, λ = 0, as in PyTorch. State: `sgd/velocity/<weight>`, one Variable per weight; none
 * if momentum is the number 0. Cost: about 6 FLOP per weight, one pass over memory where the engine has a fused kernel.
 * An `update` link.
 *
 * Source: Sutskever et al. 2013 (ICML), as in torch.optim.SGD.
 *
 * @throws `CONFIG` for an unknown option, a value outside its range (a schedule's: when read, with its step), or
 * `nesterov` with momentum 0
 * @example
 * ```ts
 * sgd({ learningRate: '0.1 * (1 - t)^0.9', momentum: demon(), weightDecay: 5e-4 });
 * ```
 */
export function sgd(options: SgdOptions): UpdateLink {
  const { learningRate, momentum, weightDecay, nesterov, decoupled, decays, moving, decaying } = settle(options);
  return {
    kind: 'update',
    name: 'sgd',
    rateOf: () => learningRate,
    open({ params }) {
      const slots = openSlots('sgd', moving ? ['velocity'] : [], params);
      return {
        apply(gradients, { clock }) {
          const lambda = weightDecay(clock);
          const still: SgdHyper = {
            learningRate: learningRate(clock),
            momentum: momentum(clock),
            nesterov,
            weightDecay: 0,
          };
          const shrinking: SgdHyper = decoupled
            ? { ...still, weightDecay: lambda }
            : { ...still, coupledDecay: lambda };
          for (const param of params) {
            const g = gradients.get(param.name);
            const v = moving ? slots.get('velocity', param) : undefined;
            if (g) sgdUpdate(param.value, g, v, decays(param) ? shrinking : still);
          }
        },
        state: slots.state,
        hyperparameters: ({ clock }) => ({
          learningRate: learningRate(clock),
          momentum: momentum(clock),
          ...(decaying && { weightDecay: weightDecay(clock) }),
        }),
        dispose: slots.dispose,
      };
    },
  };
}
