import { checkInteger, checkNumber, checkOptions, FrugalError, type Stream } from '@frugal/core';
import { cholesky, choleskySolve } from './cholesky.js';

/** An ensemble of J members, what each of them predicts, and what was observed. */
export interface Observed {
  /** J, the number of members. */
  readonly count: number;
  /** M [J, P]: parameters, member after member. The analysis changes them in place. */
  readonly members: Float64Array;
  /** D [J, N]: predictions, member after member. */
  readonly predictions: Float64Array;
  /** d [N]: observations. */
  readonly observations: Float64Array;
  /** R: variance of the observation error, above 0; one number, or one per output (its length divides N). */
  readonly variance: number | readonly number[];
}

/** How the ensemble is widened after an analysis, which narrows it. */
export interface Inflation {
  /** λ ≥ 1: m_j ← m̄ + λ·(m_j − m̄). Default 1; 1.0 to 1.1 is usual. */
  readonly multiplicative?: number;
  /** σ ≥ 0: m_j ← m_j + σ·N(0, 1). Default 0. It is what lets the ensemble leave the span it started in. */
  readonly additive?: number;
}

/** Which entries of the gain are kept. */
export interface Localisation {
  /** c in [0, 1): keeps the entries whose sample correlation |ρ| is above c. Default 3/√J. */
  readonly threshold?: number;
}

/** Options of {@link analyse}. */
export interface AnalysisOptions {
  /** Where the perturbations of the observations come from. */
  readonly random: Stream;
  /** α > 0: the observation variance is α·R. Default 1. */
  readonly alpha?: number;
  /** Default: none. */
  readonly inflation?: Inflation;
  /** Default: none; `{}` for the default threshold. */
  readonly localisation?: Localisation;
  /** Which system is solved. Default: the smaller one; localisation needs `observation`. */
  readonly form?: 'ensemble' | 'observation';
}

/** What an analysis did. */
export interface AnalysisReport {
  /** The system that was solved: J×J in the space of members, or N×N in the space of observations. */
  readonly form: 'ensemble' | 'observation';
  /** Share of the gain that localisation kept; 1 without. */
  readonly kept: number;
}

/** Most entries [P, N] of a gain that localisation may make: 80 MB. */
const LARGEST_GAIN = 1e7;
/** Most observations of an N×N system under localisation. */
const LARGEST_SYSTEM = 2000;

const at = (values: Float64Array, index: number): number => values[index] as number;

/** Checks an {@link Inflation}; both numbers, with their defaults. */
export function checkInflation(owner: string, inflation: Inflation = {}): Required<Inflation> {
  checkOptions(`${owner}: inflation`, inflation, ['multiplicative', 'additive']);
  return {
    multiplicative: checkNumber(owner, 'inflation.multiplicative', inflation.multiplicative ?? 1, { min: 1 }),
    additive: checkNumber(owner, 'inflation.additive', inflation.additive ?? 0, { min: 0 }),
  };
}

/** Checks a {@link Localisation}; its threshold for J members. */
export function checkLocalisation(owner: string, localisation: Localisation, count: number): number {
  checkOptions(`${owner}: localisation`, localisation, ['threshold']);
  const { threshold = Math.min(3 / Math.sqrt(count), 1 - 1e-9) } = localisation;
  return checkNumber(owner, 'localisation.threshold', threshold, { min: 0, max: 1, belowMax: true });
}

/** Means of the columns of [J, width]. */
export function columnMeans(rows: Float64Array, count: number): Float64Array {
  const width = rows.length / count;
  const means = new Float64Array(width);
  for (let j = 0; j < count; j++) for (let p = 0; p < width; p++) means[p] = at(means, p) + at(rows, j * width + p);
  return means.map((sum) => sum / count);
}

/** Rows [J, width] minus their mean, over √(J − 1): then AᵀA is the sample covariance. */
export function anomalies(rows: Float64Array, count: number): Float64Array {
  const means = columnMeans(rows, count);
  const scale = 1 / Math.sqrt(count - 1);
  return rows.map((value, index) => (value - at(means, index % means.length)) * scale);
}

function dot(a: Float64Array, i: number, b: Float64Array, j: number, n: number): number {
  let sum = 0;
  for (let k = 0; k < n; k++) sum += at(a, i * n + k) * at(b, j * n + k);
  return sum;
}

/** y [row j] += factor · x [row i], rows of length n. */
function addRow(y: Float64Array, j: number, factor: number, x: Float64Array, i: number, n: number): void {
  for (let k = 0; k < n; k++) y[j * n + k] = at(y, j * n + k) + factor * at(x, i * n + k);
}

/** The parts of an analysis, whitened: everything in units of the observation error. */
interface Whitened {
  readonly j: number;
  readonly n: number;
  readonly p: number;
  readonly alpha: number;
  /** A [J, P]: anomalies of the parameters. */
  readonly a: Float64Array;
  /** S [J, N]: anomalies of the predictions over √R. */
  readonly s: Float64Array;
  /** r [J, N]: (d + √(αR)·z_j − d_j) / √R. */
  readonly r: Float64Array;
}

function whiten(given: Observed, alpha: number, random: Stream): Whitened {
  const { count, members, predictions, observations, variance } = given;
  const n = observations.length;
  const list = typeof variance === 'number' ? [variance] : variance;
  const deviation = Float64Array.from({ length: n }, (_, k) => Math.sqrt(list[k % list.length] as number));
  const noise = Math.sqrt(alpha);
  const r = predictions.map(
    (value, index) => (at(observations, index % n) - value) / at(deviation, index % n) + noise * random.normal(),
  );
  const s = anomalies(predictions, count).map((value, index) => value / at(deviation, index % n));
  return { j: count, n, p: members.length / count, alpha, a: anomalies(members, count), s, r };
}

/** m_j += Σ_i A_i·X_ij with (S·Sᵀ + αI)·X = S·rᵀ, a J×J system. */
function ensembleForm(members: Float64Array, { j, n, p, alpha, a, s, r }: Whitened): void {
  const system = new Float64Array(j * j);
  for (let i = 0; i < j; i++) {
    for (let k = 0; k <= i; k++) system[i * j + k] = dot(s, i, s, k, n);
    system[i * j + i] = at(system, i * j + i) + alpha;
  }
  const factor = cholesky(system, j);
  const x = new Float64Array(j);
  for (let m = 0; m < j; m++) {
    for (let i = 0; i < j; i++) x[i] = dot(s, i, r, m, n);
    choleskySolve(factor, j, x);
    for (let i = 0; i < j; i++) addRow(members, m, at(x, i), a, i, p);
  }
}

/** Norms of the columns of [J, width]. */
function columnNorms(rows: Float64Array, count: number): Float64Array {
  const width = rows.length / count;
  const squares = new Float64Array(width);
  rows.forEach((value, index) => {
    squares[index % width] = at(squares, index % width) + value * value;
  });
  return squares.map(Math.sqrt);
}

/** Zeroes the entries of the gain [P, N] whose correlation is not above the threshold; the share that was kept. */
function localise(gain: Float64Array, cross: Float64Array, w: Whitened, threshold: number): number {
  const parameters = columnNorms(w.a, w.j);
  const outputs = columnNorms(w.s, w.j);
  let kept = 0;
  for (let index = 0; index < gain.length; index++) {
    const scale = at(parameters, Math.floor(index / w.n)) * at(outputs, index % w.n);
    if (Math.abs(at(cross, index)) > threshold * scale) kept++;
    else gain[index] = 0;
  }
  return kept / gain.length;
}

/** m_j += K·r_j with the explicit gain K·(Sᵀ·S + αI) = Aᵀ·S, an N×N system. Returns the share of the gain kept. */
function observationForm(members: Float64Array, w: Whitened, threshold: number | undefined): number {
  const { j, n, p, alpha, a, s, r } = w;
  const system = new Float64Array(n * n);
  for (let m = 0; m < j; m++) for (let k = 0; k < n; k++) addScaled(system, k, at(s, m * n + k), s, m, n);
  for (let k = 0; k < n; k++) system[k * n + k] = at(system, k * n + k) + alpha;
  const factor = cholesky(system, n);
  const gain = new Float64Array(p * n);
  for (let m = 0; m < j; m++) for (let q = 0; q < p; q++) addScaled(gain, q, at(a, m * p + q), s, m, n);
  const cross = threshold === undefined ? undefined : gain.slice();
  for (let q = 0; q < p; q++) choleskySolve(factor, n, gain.subarray(q * n, (q + 1) * n));
  const kept = cross && threshold !== undefined ? localise(gain, cross, w, threshold) : 1;
  for (let m = 0; m < j; m++) {
    for (let q = 0; q < p; q++) members[m * p + q] = at(members, m * p + q) + dot(gain, q, r, m, n);
  }
  return kept;
}

function addScaled(y: Float64Array, j: number, factor: number, x: Float64Array, i: number, n: number): void {
  if (factor !== 0) addRow(y, j, factor, x, i, n);
}

function inflate(members: Float64Array, count: number, inflation: Required<Inflation>, random: Stream): void {
  const { multiplicative, additive } = inflation;
  if (multiplicative !== 1) {
    const means = columnMeans(members, count);
    members.forEach((value, index) => {
      const mean = at(means, index % means.length);
      members[index] = mean + multiplicative * (value - mean);
    });
  }
  if (additive > 0) {
    members.forEach((value, index) => {
      members[index] = value + additive * random.normal();
    });
  }
}

function checkObserved({ count, members, predictions, observations, variance }: Observed): void {
  checkInteger('analyse', 'count', count, { min: 2 });
  const list = typeof variance === 'number' ? [variance] : variance;
  for (const value of list) checkNumber('analyse', 'variance', value, { min: 0, aboveMin: true });
  const n = observations.length;
  if (members.length % count !== 0 || n === 0 || predictions.length !== count * n || n % list.length !== 0) {
    throw new FrugalError(
      'SHAPE',
      `analyse: expected members [${count}, P], predictions [${count}, N], observations [N] and a variance whose length divides N but received ${members.length}, ${predictions.length}, ${n} and ${list.length} values.`,
    );
  }
}

function chooseForm(n: number, p: number, count: number, options: AnalysisOptions): AnalysisReport['form'] {
  if (!options.localisation) return options.form ?? (n <= count ? 'observation' : 'ensemble');
  if (options.form === 'ensemble' || n > LARGEST_SYSTEM || p * n > LARGEST_GAIN) {
    throw new FrugalError(
      'CONFIG',
      `analyse: localisation needs the explicit gain [P, N], with N at most ${LARGEST_SYSTEM} and P·N at most ${LARGEST_GAIN}, but P is ${p} and N is ${n}${options.form === 'ensemble' ? ', in ensemble form' : ''}. Use smaller batches, or no localisation and more members.`,
    );
  }
  return 'observation';
}

/**
 * The analysis step of the stochastic ensemble Kalman filter, in place, in float64:
 *
 *   m_j ← m_j + C_MD·(C_DD + αR)⁻¹·(d + √(αR)·z_j − d_j),   z_j ~ N(0, I),
 *
 * where C_MD [P, N] and C_DD [N, N] are the sample covariances (over J − 1) of members M [J, P] and predictions D [J,
 * N]. Predictions are whitened by √R first. Then it solves the smaller of two equal systems: with A and S the anomalies
 * of M and of whitened D over √(J − 1), `ensemble` is Aᵀ·(S·Sᵀ + αI)⁻¹·S (Woodbury), a J×J system, O(N·J² + P·J² + J³);
 * `observation` is (Aᵀ·S)·(Sᵀ·S + αI)⁻¹, an N×N system, O(P·N·J + P·N² + N³), which makes the gain explicit.
 *
 * Unbiased only as J → ∞ and for linear maps; the error of the mean falls as 1/√J. Without additive inflation or
 * localisation the update stays in the span of the J − 1 anomalies.
 *
 * Source: Evensen 1994; Burgers et al. 1998 (perturbed observations); Emerick & Reynolds 2013 (α). Localisation by
 * correlation: Luo & Bhakta 2020.
 *
 * @throws `SHAPE` for arrays that do not fit together; `CONFIG` for options out of range, and for localisation with a
 * gain that is too large; `NON_FINITE` for predictions that are not finite
 */
export function analyse(given: Observed, options: AnalysisOptions): AnalysisReport {
  checkOptions('analyse', options, ['random', 'alpha', 'inflation', 'localisation', 'form']);
  checkObserved(given);
  const { random, localisation } = options;
  const { members, count } = given;
  const alpha = checkNumber('analyse', 'alpha', options.alpha ?? 1, { min: 0, aboveMin: true });
  const inflation = checkInflation('analyse', options.inflation);
  const threshold = localisation && checkLocalisation('analyse', localisation, count);
  const form = chooseForm(given.observations.length, members.length / count, count, options);
  const whitened = whiten(given, alpha, random);
  let kept = 1;
  if (form === 'ensemble') ensembleForm(members, whitened);
  else kept = observationForm(members, whitened, threshold);
  inflate(members, count, inflation, random);
  return { form, kept };
}
