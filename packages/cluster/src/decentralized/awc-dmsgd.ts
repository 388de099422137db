import { type DecentralizedLink, decentralizedLink, type MomentumOptions } from './link.js';

/**
 * Decentralized momentum SGD, adapt while combining: the average does not wait for the gradient,
 *
 *   m_i ← β m_i + g_i;   x_i ← Σ_j w_ij x_j − γ m_i.
 *
 * All are vectors of P numbers, the weights of a rank. Biased as DmSGD and somewhat more: with full gradients the limit
 * solves (I − W)x = −γ/(1 − β)·∇f(x). Sends 4P bytes to each neighbour a step. State: `awcDmsgd/velocity/<weight>`.
 *
 * Defaults: β = 0.9, λ = 0. Source: the baseline AWC-DmSGD of arXiv 2104.11981, BlueFog's AdaptWithCombine. An `update` link. Any topology.
 *
 * @throws FrugalError `CONFIG` for bad options, and before the first step for weights that are not doubly stochastic
 */
export function awcDmsgd(options: MomentumOptions): DecentralizedLink {
  return decentralizedLink(
    {
      name: 'awcDmsgd',
      momentum: 0.9,
      slots: ['velocity'],
      async iterate({ x, g, state: { velocity }, rate, momentum, combine, mix }) {
        combine(velocity, momentum, velocity, 1, g);
        await mix(x);
        combine(x, 1, x, -rate, velocity);
      },
    },
    options,
  );
}
