import { type DecentralizedLink, type DecentralizedOptions, decentralizedLink } from './link.js';

/**
 * Decentralized SGD, adapt then combine: a rank steps along its own gradient and averages with its neighbours,
 *
 *   x_i ← Σ_j w_ij (x_j − γ g_j).
 *
 * x and g are all weights of a rank as one vector of P numbers. Biased where the ranks hold different data: with full
 * gradients the limit solves x = W(x − γ∇f(x)), which lies O(γ²b²) from the minimum (squared), b² the mean ‖∇f_i‖² there.
 * Sends 4P bytes to each neighbour a step. No state.
 *
 * Defaults: λ = 0. Source: Lian et al., arXiv 1705.09056; the order of Chen and Sayed (adapt then combine). An `update`
 * link. Any topology.
 *
 * @throws FrugalError `CONFIG` for bad options, and before the first step for weights that are not doubly stochastic
 * @example
 * ```ts
 * dsgd({ learningRate: 0.1, topology: onePeerExponential() });
 * ```
 */
export function dsgd(options: DecentralizedOptions): DecentralizedLink {
  return decentralizedLink(
    {
      name: 'dsgd',
      slots: [],
      async iterate({ x, g, rate, combine, mix }) {
        combine(x, 1, x, -rate, g);
        await mix(x);
      },
    },
    options,
  );
}
