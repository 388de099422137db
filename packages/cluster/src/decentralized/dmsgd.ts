import { type DecentralizedLink, decentralizedLink, type MomentumOptions } from './link.js';
import type { Recursion } from './recursion.js';

/** The recursion of {@link dmsgd}, which others build on. */
export const dmsgdRecursion: Recursion<'velocity'> = {
  slots: ['velocity'],
  async iterate({ x, g, state: { velocity }, rate, momentum, combine, mix }) {
    combine(velocity, momentum, velocity, 1, g);
    combine(x, 1, x, -rate, velocity);
    await mix(x);
  },
};

/**
 * Decentralized momentum SGD, adapt then combine: heavy-ball momentum at each rank, then the average of the weights,
 *
 *   m_i ← β m_i + g_i;   x_i ← Σ_j w_ij (x_j − γ m_j).
 *
 * All are vectors of P numbers, the weights of a rank. Biased, and momentum makes it worse: with full gradients the limit is
 * that of DSGD with γ/(1 − β), O(γ²b²/(1 − β)²). Sends 4P bytes to each neighbour a step. State: `dmsgd/velocity/<weight>`.
 *
 * Defaults: β = 0.9, λ = 0. Source: the baseline of arXiv 2104.11981 (DmSGD), BlueFog's AdaptThenCombine. An `update` link. Any topology; of one rank it is `sgd` with momentum.
 *
 * @throws FrugalError `CONFIG` for bad options, and before the first step for weights that are not doubly stochastic
 */
export function dmsgd(options: MomentumOptions): DecentralizedLink {
  return decentralizedLink({ name: 'dmsgd', momentum: 0.9, ...dmsgdRecursion }, options);
}
