import { checkInteger, checkNumber } from '@frugal/core';
import { dmsgdRecursion } from './dmsgd.js';
import { type DecentralizedLink, decentralizedLink, type MomentumOptions } from './link.js';

/** Options of {@link slowMo}. */
export interface SlowMoOptions extends MomentumOptions {
  /** τ: steps of the base method between two exact averages. Default 48. */
  readonly every?: number;
  /** Momentum of the outer step, in [0, 1). Default 0.5. */
  readonly slowMomentum?: number;
  /** α > 0: rate of the outer step, relative to γ. Default 1. */
  readonly slowLearningRate?: number;
}

/**
 * Slow momentum: τ steps of DmSGD, then an exact average over all ranks and a momentum step from where the round began,
 *
 *   x̄ = mean of the ranks;   u ← β_s u + (a − x̄)/γ;   x_i ← a − α γ u;   a: the weights at the start of the round.
 *
 * All are vectors of P numbers, the weights of a rank. Kept is s = γu, so that nothing is divided by the rate; with a
 * schedule the old s is scaled by γ of now over γ of a round ago. The velocity of DmSGD goes on through the average. With
 * β_s = 0 and α = 1 it is DmSGD with an exact average every τ steps. Biased, as its base.
 *
 * Sends 4P bytes to each neighbour a step, and an all-reduce of 4P bytes every τ steps, counted as 8P(n − 1)/n. State:
 * `slowMo/velocity/<weight>`, `slowMo/anchor/<weight>` (a), `slowMo/slow/<weight>` (s).
 *
 * Defaults: τ = 48, β_s = 0.5, α = 1, as in torchdistx's SlowMomentumOptimizer; β = 0.9, λ = 0. Source: Wang et al., ICLR 2020,
 * arXiv 1910.00643, Algorithm 1. An `update` link. Any topology.
 *
 * @throws FrugalError `CONFIG` for bad options, and before the first step for weights that are not doubly stochastic
 */
export function slowMo(options: SlowMoOptions): DecentralizedLink {
  const every = checkInteger('slowMo', 'every', options.every ?? 48, { min: 1 });
  const slowMomentum = checkNumber('slowMo', 'slowMomentum', options.slowMomentum ?? 0.5, {
    min: 0,
    max: 1,
    belowMax: true,
  });
  const slowRate = checkNumber('slowMo', 'slowLearningRate', options.slowLearningRate ?? 1, { min: 0, aboveMin: true });
  return decentralizedLink(
    {
      name: 'slowMo',
      momentum: 0.9,
      known: ['every', 'slowMomentum', 'slowLearningRate'],
      slots: ['velocity', 'anchor', 'slow'],
      async iterate(at) {
        const { x, step, rateRatio, combine, average } = at;
        const { anchor, slow } = at.state;
        if (step % every === 0) anchor.set(x);
        await dmsgdRecursion.iterate(at);
        if ((step + 1) % every !== 0) return;
        await average(x);
        combine(x, 1, anchor, -1, x);
        combine(slow, slowMomentum * rateRatio(every), slow, 1, x);
        combine(x, 1, anchor, -slowRate, slow);
      },
    },
    options,
  );
}
