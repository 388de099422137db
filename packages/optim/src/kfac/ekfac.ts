import { checkInteger, FrugalError } from '@frugal/core';
import { type KfacMethod, methodOf } from './kfac.js';
import { type KfacOptions, settle } from './options.js';

/** Options of {@link ekfac}: those of K-FAC but for its form, and how many examples are looked at. */
export interface EkfacOptions extends Omit<KfacOptions, 'form' | 'overlap' | 'distribution'> {
  /** Examples of a batch whose gradients are taken one by one, ≥ 1; more cost more and tell more. Default 16. */
  readonly examples?: number;
}

const SOURCE = 'George, Laurent, Bouthillier, Ballas, Vincent 2018, arXiv 1806.03884';
const ABSENT = ['form', 'overlap', 'distribution'] as const;

/**
 * K-FAC whose eigenvalues are corrected: in the eigenbasis of A ⊗ G, not the products of eigenvalues but the second moments
 * that gradients of single examples have there,
 *
 *   S [a, g] = E_n[(Q_Aᵀ·∇_n·Q_G)²], element by element;  P = Q_A·((Q_Aᵀ·∇·Q_G) / (S + γ))·Q_Gᵀ,
 *
 * which is the diagonal that comes nearest to the Fisher matrix in that basis. S is a running average over the steps that update
 * factors, of the first `examples` of each batch, and begins at λ_A·λ_Gᵀ with each decomposition. Everything else as in
 * {@link kfac}. A layer that is used twice counts as two layers with one weight. One rank.
 *
 * Cost above K-FAC: in steps that update factors, one gradient per example and layer, turned by both bases. Memory: S.
 *
 * Source: George et al. 2018, Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis, arXiv 1806.03884,
 * Algorithm 1; that S begins at λ_A·λ_Gᵀ is ours.
 *
 * @experimental
 * @throws FrugalError `CONFIG` as `kfac` does, and for its options that are not here
 */
export function ekfac(options: EkfacOptions = {}): KfacMethod {
  const { examples = 16, ...rest } = options;
  const other = ABSENT.find((name) => name in rest);
  if (other)
    throw new FrugalError('CONFIG', `ekfac: expected no option ${other} but received one. Leave it out, or use kfac.`);
  const correction = { examples: checkInteger('ekfac', 'examples', examples, { min: 1 }) };
  return methodOf('ekfac', SOURCE, { ...settle(rest), correction });
}
