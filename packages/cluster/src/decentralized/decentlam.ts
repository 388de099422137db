import { type DecentralizedLink, decentralizedLink, type MomentumOptions } from './link.js';
import { requireSymmetric } from './requirements.js';

/**
 * DecentLaM: momentum over the whole step of DSGD, the exchange included, so that momentum adds no bias,
 *
 *   x⁺_i = Σ_j w_ij (x_j − γ_k g_j) + β (γ_k/γ_{k−1}) v_i;   v⁺_i = x⁺_i − x_i,   v = 0 at the start.
 *
 * All are vectors of P numbers, the weights of a rank. The paper writes g̃_i = (x_i − Σ_j w_ij (x_j − γ g_j))/γ,
 * m_i ← β m_i + g̃_i, x_i ← x_i − γ m_i. Since its v = −γ_{k−1} m, both are the same numbers under every schedule with
 * γ > 0; here nothing is divided by γ, which costs digits in float32 (some 1 % of the bias at γ = 1e-4) and is NaN at
 * γ = 0. In a step with γ = 0 the ranks only average, and the velocity starts anew after it.
 *
 * Biased, O(γ²b²): with full gradients the limit is that of DSGD(γ) for every β, where DmSGD has that of DSGD(γ/(1 − β)). The
 * gain shows where gradient noise is small, as in large batches. Needs symmetric weights: with others the ranks drift apart
 * (a static exponential graph of 8 ranks: by 1.24 a step at β = 0.9, whatever γ). The theory also asks for W to be positive
 * definite, `lazy(topology)`; a ring works without. Symmetric weights that change from step to step are let through, outside
 * the theory; they too can drive the ranks apart, `lazy(topology)` is the safer form. Sends 4P bytes to each neighbour a step, as DmSGD. State:
 * `decentlam/velocity/<weight>`, v in units of weights.
 *
 * Defaults: β = 0.9 (the paper), λ = 0. Source: Yuan et al., ICCV 2021, arXiv 2104.11981, Algorithm 2. An `update` link.
 *
 * @throws FrugalError `CONFIG` for bad options, and before the first step for a topology that is not symmetric
 * @example
 * ```ts
 * decentlam({ learningRate: '0.1 * (1 - t)', topology: symmetricExponential(), weightDecay: 1e-4 });
 * ```
 */
export function decentlam(options: MomentumOptions): DecentralizedLink {
  return decentralizedLink(
    {
      name: 'decentlam',
      momentum: 0.9,
      slots: ['velocity'],
      prepare: (topology, size) => requireSymmetric('decentlam', topology, size),
      async iterate({ x, g, state: { velocity }, rate, momentum, rateRatio, combine, mix }) {
        const next = g;
        combine(next, 1, x, -rate, g);
        await mix(next);
        combine(next, 1, next, momentum * rateRatio(1), velocity);
        combine(velocity, 1, next, -1, x);
        x.set(next);
      },
    },
    options,
  );
}
