import { checkOptions, type Hyper, hyper } from '@frugal/core';
import { ensembleMethod } from './ensemble.js';
import { ENSEMBLE_OPTIONS, type EnsembleMethod, type EnsembleOptions } from './options.js';

/** Options of {@link enkf}. */
export interface EnkfOptions extends EnsembleOptions {
  /**
   * λ in [0, 1): an analysis starts at v_j = m_j + λ·(m_j − m_j before the last one), where the members are also run, as
   * Nesterov does for gradients. For many analyses of the whole data set; online it hurts. 0.5 is safe; the usual
   * `'step / (step + 3)'` runs away when there are more than about ten. Default: not. Keeps a second copy of the ensemble.
   *
   * Source: Kovachki & Stuart 2019, arXiv 1808.03620; Vernon, Bach & Dunbar 2025, arXiv 2501.08779.
   */
  readonly momentum?: Hyper;
}

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
 * of the weights. No backward pass. Run it by `train` with `optimizer: []`; it makes the whole step, so a
 * rule or an observer beside it does nothing, and an optimizer is refused. Checkpoints hold the ensemble; the report begins
 * anew on a resume.
 *
 * With the whole data set in each batch and many epochs it is ensemble Kalman inversion (EKI), an optimiser: `momentum`
 * and `dropout` are for that.
 *
 * With a `communicator`, ranks divide the forward passes of the members: rank r of n runs members ⌊r·J/n⌋ to
 * ⌊(r + 1)·J/n⌋, the predictions are gathered (J·N float64 and four numbers per rank a step; weights never travel), and
 * every rank makes the same analysis of the whole ensemble: memory and analysis are not divided. All ranks must be given
 * the same batches, so the same data and seed, which is checked. The ranks of a run hold the same bits, if their CPUs make
 * LAPACK round alike: those of one rank. (Large convolutional networks are run in pieces whose size depends on the members
 * of a rank; there the last bit may differ.) Checkpoints do not depend on the number of ranks.
 * `predict` runs all members on the rank that calls it.
 *
 * With classes, targets are one-hot and R says how far an output may be from them: `observationNoise` 0.3 to 1.
 *
 * Source: Chen et al. 2020, arXiv 2010.02626; Evensen 1994; Burgers et al. 1998.
 *
 * @throws `CONFIG` for an unknown option or a value outside its range; when a run opens it, for a model of several inputs or
 * outputs; while training, for localisation that is too large; `SHAPE`, `NON_FINITE`, `COMMUNICATION`
 * @example
 * ```ts
 * const method = enkf({ observationNoise: 0.05 });
 * const report = await train(model, sine().train, { methods: [method], optimizer: [], epochs: 1, batchSize: 1 });
 * const { mean, standardDeviation } = report.of(method).predict(xs);
 * ```
 */
export function enkf(options: EnkfOptions): EnsembleMethod {
  checkOptions('enkf', options, [...ENSEMBLE_OPTIONS, 'momentum']);
  const { momentum: lambda } = options;
  const momentum =
    lambda === undefined ? undefined : hyper('enkf', 'momentum', lambda, { min: 0, max: 1, belowMax: true });
  const source = 'Chen et al. 2020, arXiv 2010.02626';
  return ensembleMethod({ name: 'enkf', source, openAlpha: () => () => 1, momentum }, options);
}
