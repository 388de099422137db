import {
  checkChoice,
  checkInteger,
  checkOptions,
  FrugalError,
  type Hyper,
  hyper,
  type Schedule,
  show,
  type Site,
} from '@frugal/core';
import { type Distribution, settleDistribution } from './distribution.js';
import { isAdaptive, type LevenbergMarquardt } from './levenberg-marquardt.js';

/** Options of {@link kfac}. */
export interface KfacOptions {
  /** γ > 0, added to every eigenvalue of the Fisher matrix; or how it adapts. Default 0.003, as in the CIFAR runs of the paper. */
  readonly damping?: Hyper | LevenbergMarquardt;
  /** α in [0, 1): what running averages of factors keep in one update. Default 0.95. */
  readonly decay?: Hyper;
  /**
   * What running averages start from: `'batch'`: the first factors, α being min(1 − 1/k, decay) at the k-th update; or
   * `'identity'`, as in the paper's code, which still weighs 5 % after 58 updates. Default `'batch'`.
   */
  readonly start?: 'batch' | 'identity';
  /** Factors are updated in every so many steps, by number or schedule. Default 10, as in the paper. */
  readonly factorEvery?: Hyper;
  /** They are decomposed in every so many steps, by number or schedule. Default 100, as in the paper. */
  readonly inverseEvery?: Hyper;
  /**
   * κ > 0: η²·Σ P ⊙ ∇, the predicted change of the output distribution by the step η·P, before momentum, is at most so much, η
   * the learning rate of the update that follows; `false`: any. Default 0.001.
   */
  readonly klClip?: Hyper | false;
  /** `'eigen'` damps the eigenvalues of A ⊗ G; `'inverse'` damps A and G each. Default `'eigen'`. */
  readonly form?: 'eigen' | 'inverse';
  /**
   * `'empirical'`: G of the gradients of the step, with the true targets, for nothing; `'sampled'`: of targets drawn from the
   * predictions, the true Fisher matrix, by a second pass in each step that updates factors. Default `'empirical'`.
   */
  readonly fisher?: 'empirical' | 'sampled';
  /** Layers to leave alone. Default: none. */
  readonly skip?: (site: Site) => boolean;
  /** A layer with a larger factor passes through: a decomposition takes O(n³). Default 2048. */
  readonly largest?: number;
  /** Is the loss the mean over examples, or their sum? Default `'mean'`. */
  readonly lossReduction?: 'mean' | 'sum';
  /**
   * Begin to decompose in the background of the steps up to the next update of factors, from which on the result is used;
   * with the eigen form and LAPACK on other threads, else only later. Default false.
   */
  readonly overlap?: boolean;
  /** Who does what on many ranks; the link then exchanges. Default: one rank. */
  readonly distribution?: Distribution;
}

const KNOWN = [
  'damping',
  'decay',
  'start',
  'factorEvery',
  'inverseEvery',
  'klClip',
  'form',
  'fisher',
  'skip',
  'largest',
  'lossReduction',
  'overlap',
  'distribution',
];

/** Options that were checked. */
export interface Settings {
  readonly damping: Schedule | LevenbergMarquardt;
  readonly decay: Schedule;
  readonly start: 'batch' | 'identity';
  readonly factorEvery: Schedule;
  readonly inverseEvery: Schedule;
  /** κ; absent where nothing is clipped. */
  readonly klClip?: Schedule;
  readonly form: 'eigen' | 'inverse';
  readonly fisher: 'empirical' | 'sampled';
  readonly skip: (site: Site) => boolean;
  readonly largest: number;
  readonly lossReduction: 'mean' | 'sum';
  readonly overlap: boolean;
  readonly distribution: Required<Distribution> | undefined;
  /** Second moments in the eigenbasis, of so many examples of a batch: EK-FAC. */
  readonly correction?: { readonly examples: number };
}

const every = (name: string, value: Hyper): Schedule => hyper('kfac', name, value, { min: 1 });

function settleSkip(skip: KfacOptions['skip'] = () => false): (site: Site) => boolean {
  if (typeof skip === 'function') return skip;
  throw new FrugalError('CONFIG', `kfac: expected skip to be a function of a Site but received ${show(skip)}.`);
}

function settleOverlap(overlap: unknown = false): boolean {
  if (typeof overlap === 'boolean') return overlap;
  throw new FrugalError('CONFIG', `kfac: expected overlap to be true or false but received ${show(overlap)}.`);
}

/** Checks the options of `kfac`. Throws `CONFIG`. */
export function settle(options: KfacOptions): Settings {
  checkOptions('kfac', options, KNOWN);
  const { damping = 3e-3 } = options;
  const { klClip = 1e-3 } = options;
  if (isAdaptive(damping) && options.distribution)
    throw new FrugalError(
      'CONFIG',
      'kfac: expected damping to be a number or a schedule with distribution, since levenbergMarquardt looks at the loss of one rank only. Pass a schedule.',
    );
  return {
    damping: isAdaptive(damping) ? damping : hyper('kfac', 'damping', damping, { min: 0, aboveMin: true }),
    decay: hyper('kfac', 'decay', options.decay ?? 0.95, { min: 0, max: 1, belowMax: true }),
    start: checkChoice('kfac', 'start', options.start ?? 'batch', ['batch', 'identity']),
    factorEvery: every('factorEvery', options.factorEvery ?? 10),
    inverseEvery: every('inverseEvery', options.inverseEvery ?? 100),
    ...(klClip !== false && { klClip: hyper('kfac', 'klClip', klClip, { min: 0, aboveMin: true }) }),
    form: checkChoice('kfac', 'form', options.form ?? 'eigen', ['eigen', 'inverse']),
    fisher: checkChoice('kfac', 'fisher', options.fisher ?? 'empirical', ['empirical', 'sampled']),
    skip: settleSkip(options.skip),
    largest: checkInteger('kfac', 'largest', options.largest ?? 2048, { min: 1 }),
    lossReduction: checkChoice('kfac', 'lossReduction', options.lossReduction ?? 'mean', ['mean', 'sum']),
    overlap: settleOverlap(options.overlap),
    distribution: settleDistribution(options.distribution),
  };
}
