import { exactDiffusion } from './d2.js';
import { type DecentralizedLink, decentralizedLink, type MomentumOptions } from './link.js';
import { forExactDiffusion } from './requirements.js';

/**
 * Exact Diffusion with momentum: D² along an averaged gradient,
 *
 *   m⁺_i = β m_i + (1 − β) g_i;   x⁺_i = Σ_j w_ij (2x_j − x⁻_j − γ(m⁺_j − m_j)).
 *
 * All are vectors of P numbers, the weights of a rank. With constant γ and β this is `d2` with β and (1 − β)γ. Unbiased by
 * heterogeneity: with full gradients it converges to the minimum. Needs what `d2` needs, and does the same where λ_min is
 * too low. Sends 4P bytes to each neighbour a step. State: `edm/velocity/<weight>` and `edm/correction/<weight>`.
 *
 * Defaults: β = 0.9, λ = 0. Source: Hu, Chen, Liu and Mao, arXiv 2501.19082. An `update` link.
 *
 * @throws FrugalError `CONFIG` for bad options, and before the first step for a topology that is not symmetric or changes
 */
export function edm(options: MomentumOptions): DecentralizedLink {
  return decentralizedLink(
    {
      name: 'edm',
      momentum: 0.9,
      ...exactDiffusion((momentum) => 1 - momentum),
      prepare: (topology, size) => forExactDiffusion('edm', topology, size),
    },
    options,
  );
}
