import { type DecentralizedLink, decentralizedLink, type MomentumOptions } from './link.js';

/**
 * Quasi-global momentum: the velocity follows what the rank has really moved, its neighbours included,
 *
 *   x⁺_i = Σ_j w_ij (x_j − γ(β m_j + g_j));   m_i ← β m_i + (1 − β)(x_i − x⁺_i)/γ.
 *
 * All are vectors of P numbers, the weights of a rank. Kept is v = γm, so that nothing is divided by the rate: with a
 * schedule, β m γ_k = β(γ_k/γ_{k−1})·v, the same numbers as above for γ > 0, and a velocity that starts anew after γ = 0.
 * Biased: with full gradients the limit is that of DSGD(γ) for every β. Sends 4P bytes to each neighbour a step. State:
 * `qgDmsgd/velocity/<weight>`, v in units of weights.
 *
 * Defaults: β = 0.9 for both uses (the paper's μ = β), λ = 0. Source: Lin et al., arXiv 2102.04761, Algorithm 1. An
 * `update` link.
 *
 * @throws FrugalError `CONFIG` for bad options, and before the first step for weights that are not doubly stochastic
 */
export function qgDmsgd(options: MomentumOptions): DecentralizedLink {
  return decentralizedLink(
    {
      name: 'qgDmsgd',
      momentum: 0.9,
      slots: ['velocity'],
      async iterate({ x, g, state: { velocity }, rate, momentum, rateRatio, combine, mix }) {
        const next = g;
        combine(velocity, momentum * rateRatio(1), velocity, 0, velocity);
        combine(next, -1, velocity, -rate, g);
        combine(next, 1, next, 1, x);
        await mix(next);
        combine(x, 1, x, -1, next);
        combine(velocity, 1, velocity, 1 - momentum, x);
        x.set(next);
      },
    },
    options,
  );
}
