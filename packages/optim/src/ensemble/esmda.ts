import { type Batch, checkNumber, checkOptions, FrugalError } from '@frugal/core';
import { type Alpha, ensembleMethod } from './ensemble.js';
import { ENSEMBLE_OPTIONS, type EnsembleMethod, type EnsembleOptions } from './options.js';

/** Options of {@link esmda}. */
export interface EsmdaOptions extends EnsembleOptions {
  /** α_1 … α_Na, each above 0, with Σ 1/α_i = 1 within 1e-9. Default (4, 4, 4, 4). */
  readonly coefficients?: readonly number[];
}

/**
 * Inflation coefficients for {@link esmda}: any weights scaled so that Σ 1/α_i = 1, that is α_i·Σ(1/α).
 *
 * @param weights - a list such as [9.333, 7, 4, 2], or Na for Na equal ones
 * @throws `CONFIG` for an empty list or a weight that is not above 0
 */
export function inflationCoefficients(weights: number | readonly number[]): number[] {
  const list = typeof weights === 'number' ? Array.from({ length: weights }, () => 1) : weights;
  if (list.length === 0) throw new FrugalError('CONFIG', 'inflationCoefficients: expected at least one weight.');
  for (const weight of list) checkNumber('inflationCoefficients', 'weight', weight, { min: 0, aboveMin: true });
  const sum = list.reduce((total, weight) => total + 1 / weight, 0);
  return list.map((weight) => weight * sum);
}

function checkCoefficients(coefficients: readonly number[]): readonly number[] {
  for (const alpha of coefficients) checkNumber('esmda', 'coefficients', alpha, { min: 0, aboveMin: true });
  const sum = coefficients.reduce((total, alpha) => total + 1 / alpha, 0);
  if (Math.abs(sum - 1) <= 1e-9) return coefficients;
  throw new FrugalError(
    'CONFIG',
    `esmda: expected coefficients with Σ 1/α = 1 but received [${coefficients.join(', ')}], whose sum is ${sum}: the data would be counted ${sum} times. Use inflationCoefficients([…]).`,
  );
}

/** A number of the examples of a batch that does not depend on their order. */
function fingerprint({ xs, ys }: Batch): number {
  let sum = xs.shape[0] as number;
  for (const tensor of [xs, ys]) {
    for (const bits of new Uint32Array(tensor.dataSync<'float32'>().slice().buffer)) sum = (sum + bits) | 0;
  }
  return sum;
}

/** α of each step, after checking that each step sees the same, whole data set. */
function alphaOf(coefficients: readonly number[]): Alpha {
  let first: number | undefined;
  const whole = 'Set batchSize to at least the length of the data set, and epochs to the number of coefficients.';
  return (batch, { clock }) => {
    const count = coefficients.length;
    if (clock.total !== count) {
      throw new FrugalError(
        'CONFIG',
        `esmda: expected ${count} steps, one for each coefficient, each with the whole data set, but the run has ${clock.total}. ${whole}`,
      );
    }
    const seen = fingerprint(batch);
    if (clock.step === 0) first = seen;
    if (first !== undefined && seen !== first) {
      throw new FrugalError(
        'CONFIG',
        `esmda: expected the whole data set in each step but step ${clock.step} has other examples than the first. ${whole}`,
      );
    }
    first = seen;
    return coefficients[clock.step] as number;
  };
}

/**
 * Ensemble smoother with multiple data assimilation, offline: Na analyses of the whole data set,
 *
 *   m_j ← m_j + C_MD·(C_DD + α_i·R)⁻¹·(d + √α_i·ε_j − d_j),   ε_j ~ N(0, R) anew,   Σ 1/α_i = 1,
 *
 * i = 1 … Na. For a linear model and J → ∞ the Na small steps are one Kalman update; for a network, each goes where the
 * linearisation of the last one holds, so more are better: Na 4 to 10. Shapes: M [J, P], D [J, N], N = examples ×
 * outputs.
 *
 * Run it by `train` with `batchSize` ≥ the length of the data set, `epochs` = Na and `optimizer: []`; another number of
 * steps, or a part of the data, is refused. It makes the whole step: a rule or an observer beside it does nothing, and an optimizer is refused. After each step the
 * model holds the ensemble mean. Defaults: α = (4, 4, 4, 4), J = 100, s = 0.3 around the model's weights.
 *
 * A `communicator` divides the forward passes over ranks, as {@link enkf} tells.
 *
 * Cost per iteration: J forward passes of the data set and O(N·J² + P·J² + J³); J copies of the weights. Enough
 * iterations of gradient descent reach a lower error; compare `forwardPasses` of the report.
 *
 * Source: Emerick & Reynolds 2013 (ES-MDA); Chen et al. 2020, arXiv 2010.02626 (for networks).
 *
 * @throws `CONFIG` for an unknown option, a value outside its range, coefficients that do not sum to 1, or a run whose
 * steps are not Na passes over the whole data set; `SHAPE`, `NON_FINITE`, `COMMUNICATION`
 * @example
 * ```ts
 * const coefficients = inflationCoefficients([9.333, 7, 4, 2]);
 * const method = esmda({ observationNoise: 0.05, coefficients });
 * await train(model, data, { methods: [method], optimizer: [], epochs: 4, batchSize: data.length });
 * ```
 */
export function esmda(options: EsmdaOptions): EnsembleMethod {
  checkOptions('esmda', options, [...ENSEMBLE_OPTIONS, 'coefficients']);
  const coefficients = checkCoefficients(options.coefficients ?? inflationCoefficients(4));
  const source = 'Emerick & Reynolds 2013; Chen et al. 2020, arXiv 2010.02626';
  return ensembleMethod({ name: 'esmda', source, openAlpha: () => alphaOf(coefficients) }, options);
}
