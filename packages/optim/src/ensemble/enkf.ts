import { checkOptions } from '@frugal/core';
import { ENSEMBLE_OPTIONS, type EnsembleMethod, type EnsembleOptions, ensembleMethod } from './ensemble.js';

/** Options of {@link enkf}. */
export type EnkfOptions = EnsembleOptions;

/**
 * Ensemble Kalman filter, online: one analysis per batch, no gradients. The state is all trainable weights m; each of J
 * members predicts the batch, d_j = g(m_j), and
 *
 *   m_j ← m_j + C_MD·(C_DD + R)⁻¹·(d + ε_j − d_j),   ε_j ~ N(0, R),
 *
 * with sample covariances over members; weights have no dynamics. After each step the model holds the ensemble mean, so
 * that `evaluate` works. Shapes: M [J, P], D [J, N], N = batch × outputs.
 *
 * Meant for ONE pass, in small batches (1 is usual): to use data P times, multiply `observationNoise` by √P, or it is
 * counted P times. Defaults: J = 100, s = 0.3 around the model's weights. Biased for finite J and for nonlinear models.
 *
 * Cost per step: J forward passes, and O(N²·(J + P) + P·N·J) for N ≤ J, else O(N·J² + P·J²) with a J×J system; J copies
 * of the weights. No backward pass. Run it by `train` with `optimizer: []`; it makes the whole step, so an optimizer, a
 * rule or an observer beside it does nothing. Checkpoints hold the ensemble; `report()` begins anew on a resume.
 *
 * With classes, targets are one-hot and R says how far an output may be from them: `observationNoise` 0.3 to 1.
 *
 * Source: Chen et al. 2020, arXiv 2010.02626; Evensen 1994; Burgers et al. 1998.
 *
 * @throws `CONFIG` for an unknown option or a value outside its range; while training, for a model of several inputs or
 * outputs and for localisation that is too large; `SHAPE`, `NON_FINITE`
 * @example
 * ```ts
 * const method = enkf({ model, observationNoise: 0.05 });
 * await train(model, sine().train, { methods: [method], optimizer: [], epochs: 1, batchSize: 1 });
 * const { mean, standardDeviation } = method.predict(xs);
 * ```
 */
export function enkf(options: EnkfOptions): EnsembleMethod {
  checkOptions('enkf', options, ENSEMBLE_OPTIONS);
  return ensembleMethod({ name: 'enkf', source: 'Chen et al. 2020, arXiv 2010.02626', alpha: () => 1 }, options);
}
