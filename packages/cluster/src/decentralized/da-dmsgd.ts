import { type DecentralizedLink, decentralizedLink, type MomentumOptions } from './link.js';

/**
 * Doubly-averaging decentralized momentum SGD: the velocity is averaged like the weights,
 *
 *   m_i ← β m_i + g_i;   x_i ← Σ_j w_ij (x_j − γ m_j);   m_i ← Σ_j w_ij m_j.
 *
 * All are vectors of P numbers, the weights of a rank. Biased, between DSGD and DmSGD. Sends 8P bytes to each neighbour a
 * step, twice as much as DmSGD. State: `daDmsgd/velocity/<weight>`.
 *
 * Defaults: β = 0.9, λ = 0. Source: Yu, Jin and Yang, arXiv 1905.03817; the baseline DA-DmSGD of arXiv 2104.11981. An `update` link. Any topology.
 *
 * @throws FrugalError `CONFIG` for bad options, and before the first step for weights that are not doubly stochastic
 */
export function daDmsgd(options: MomentumOptions): DecentralizedLink {
  return decentralizedLink(
    {
      name: 'daDmsgd',
      momentum: 0.9,
      slots: ['velocity'],
      async iterate({ x, g, state: { velocity }, rate, momentum, combine, mix }) {
        combine(velocity, momentum, velocity, 1, g);
        combine(x, 1, x, -rate, velocity);
        await mix(x);
        await mix(velocity);
      },
    },
    options,
  );
}
