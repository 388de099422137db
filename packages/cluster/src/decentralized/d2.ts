import { type DecentralizedLink, decentralizedLink, type MomentumOptions } from './link.js';
import type { Recursion } from './recursion.js';
import { forExactDiffusion } from './requirements.js';

/** Exact Diffusion along a velocity m ← β m + c·g, c a function of β: what D² and EDM share. */
export function exactDiffusion(gain: (momentum: number) => number): Recursion<'velocity' | 'correction'> {
  return {
    slots: ['velocity', 'correction'],
    async iterate({ x, g, state: { velocity, correction }, rate, momentum, combine, mix }) {
      const stepped = g;
      combine(velocity, momentum, velocity, gain(momentum), g);
      combine(stepped, 1, x, -rate, velocity);
      combine(x, 1, stepped, 1, correction);
      await mix(x);
      combine(correction, 1, x, -1, stepped);
    },
  };
}

/**
 * D²: subtracts what the last step has added to the disagreement, so that different data on the ranks leave no bias,
 *
 *   m⁺_i = β m_i + g_i;   x⁺_i = Σ_j w_ij (2x_j − x⁻_j − γ(m⁺_j − m_j)),   first step x⁺_i = Σ_j w_ij (x_j − γ m⁺_j).
 *
 * Computed as Exact Diffusion, the same numbers with a state that starts at zero: ψ_i = x_i − γ m⁺_i,
 * x⁺_i = Σ_j w_ij (ψ_j + c_j), c⁺_i = x⁺_i − ψ_i. With a schedule each velocity is subtracted with the γ it was added with,
 * so the mean over the ranks stays that of SGD. All are vectors of P numbers, the weights of a rank.
 *
 * Unbiased by heterogeneity: with full gradients it converges to the minimum, up to rounding: nothing pulls the mean of c back
 * to zero, so errors of 6e-8·|x| a step add up at random in float32. Needs one symmetric W with λ_min > −1/3; where
 * λ_min is lower, as for a ring of an even number of ranks from 4 on, (I + W)/2 takes its place and `report()` says so.
 * Sends 4P bytes to each neighbour a step. State: `d2/velocity/<weight>` and `d2/correction/<weight>`.
 *
 * Defaults: β = 0, as in the paper, λ = 0; β > 0 is the D²-DmSGD that arXiv 2104.11981 compares with. Source: Tang et al.,
 * arXiv 1803.07068. An `update` link.
 *
 * @throws FrugalError `CONFIG` for bad options, and before the first step for a topology that is not symmetric or changes
 */
export function d2(options: MomentumOptions): DecentralizedLink {
  return decentralizedLink(
    {
      name: 'd2',
      momentum: 0,
      ...exactDiffusion(() => 1),
      prepare: (topology, size) => forExactDiffusion('d2', topology, size),
    },
    options,
  );
}
