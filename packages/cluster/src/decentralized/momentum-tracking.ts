import { type DecentralizedLink, decentralizedLink, type MomentumOptions } from './link.js';

/**
 * Momentum Tracking: each rank steps along an estimate y of the mean velocity of all ranks,
 *
 *   m_i ← β m_i + g_i;   y_i = m_i − c_i;   x_i ← Σ_j w_ij x_j − γ y_i;   c_i ← m_i − Σ_j w_ij y_j,   c = 0 at the start.
 *
 * All are vectors of P numbers, the weights of a rank. The mean of y is always that of m. Unbiased by heterogeneity: with
 * full gradients it converges to the minimum for every β. Sends 8P bytes to each neighbour a step, twice as much as
 * DecentLaM. State: `momentumTracking/velocity/<weight>` and `momentumTracking/correction/<weight>`.
 *
 * The authors' code starts m and c from the difference of the first gradient to its mean over all ranks; here both start at
 * zero, which needs no all-reduce and has the same limit. Defaults: β = 0.9, λ = 0. Source: Takezawa et al., TMLR 2023, arXiv
 * 2209.15505. An `update` link. Any topology.
 *
 * @throws FrugalError `CONFIG` for bad options, and before the first step for weights that are not doubly stochastic
 */
export function momentumTracking(options: MomentumOptions): DecentralizedLink {
  return decentralizedLink(
    {
      name: 'momentumTracking',
      momentum: 0.9,
      slots: ['velocity', 'correction'],
      async iterate({ x, g, state: { velocity, correction }, rate, momentum, combine, mix }) {
        const tracked = g;
        combine(velocity, momentum, velocity, 1, g);
        combine(tracked, 1, velocity, -1, correction);
        await mix(x);
        combine(x, 1, x, -rate, tracked);
        await mix(tracked);
        combine(correction, 1, velocity, -1, tracked);
      },
    },
    options,
  );
}
