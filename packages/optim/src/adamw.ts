import { checkOptions, type Hyper, type UpdateLink } from '@frugal/core';
import { ADAM_OPTIONS, type AdamOptions, adaptive } from './adaptive.js';
import { type DecayFilter, decayFilter } from './decay.js';

/** Options of {@link adamw}. */
export interface AdamWOptions extends AdamOptions {
  /** λ ≥ 0, decoupled: the weight also loses η·λ·w. Default 0.01 (PyTorch's AdamW). */
  readonly weightDecay?: Hyper;
  /** Which weights decay. Default: those of rank ≥ 2, so that biases and gains do not. */
  readonly decay?: DecayFilter;
}

/**
 * Adam with decoupled weight decay: w ← w − η · m̂ / (√v̂ + ε) − η·λ·w, with the moments of `adam`. The decay does not
 * pass through the moments, so it is not divided by √v̂, unlike an L2 term in the loss.
 *
 * State: `adamw/m/<weight>`, `adamw/v/<weight>` and `adamw/corrections`, two numbers of the host. Cost: that of `adam` and 2 FLOP per
 * weight.
 *
 * Source: Loshchilov, Hutter 2019, arXiv 1711.05101, Algorithm 2, with λ scaled by η as in torch.optim.AdamW (which
 * decays every weight; pass `decay: () => true` for that). An `update` link.
 *
 * @throws `CONFIG` for an unknown option or a value outside its range (a schedule's: when read, with its step)
 * @example
 * ```ts
 * adamw({ learningRate: warmup({ steps: 100, then: 3e-4 }), weightDecay: 0.05 });
 * ```
 */
export function adamw(options: AdamWOptions = {}): UpdateLink {
  checkOptions('adamw', options, [...ADAM_OPTIONS, 'weightDecay', 'decay']);
  const { weightDecay = 0.01, decay, ...rest } = options;
  return adaptive('adamw', { ...rest, weightDecay, decays: decayFilter('adamw', decay) });
}
