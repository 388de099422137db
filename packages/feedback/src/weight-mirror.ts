import {
  checkInteger,
  checkOptions,
  FrugalError,
  type GradientLink,
  hyper,
  type Hyper,
  type Method,
  type Opened,
  type Rule,
  type RunContext,
  type Scope,
  sgdUpdate,
  type Site,
  stream,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { cosineOf, degrees } from './feedback.js';
import type { Measurement } from './report.js';

/** Options of {@link weightMirror}. */
export interface WeightMirrorOptions {
  /** η, what a step's correlations add to B, in (0, 1]. Default 0.01. */
  readonly rate?: Hyper;
  /** λ, what B loses in a step, in [0, 1]: B goes to η/λ·W. Default: equal to `rate`, so that B goes to W. */
  readonly decay?: Hyper;
  /** n, noise vectors for each site and step. Default 32. */
  readonly samples?: number;
  /** Sites whose dX stays dY·Wᵀ. Default none. */
  readonly skip?: (site: Site) => boolean;
  /** Measure the angle of B to W in every so many steps, which reads the weights, as nothing else does. Default never. */
  readonly measureEvery?: number;
  /** Receives each measurement: the cosine and the angle between B and W. */
  readonly onMeasure?: (measurement: Measurement) => void;
}

/** What the mirror of one site cost. */
export interface MirrorSite {
  /** Name of the site. */
  readonly site: string;
  /** Bytes of B. */
  readonly bytes: number;
  /** Multiply-adds of its mirror phases: 2·n·K·M in each step that used B. */
  readonly multiplyAdds: number;
  /** Angle of B to W in degrees, when last measured. */
  readonly angle?: number;
}

/** What the mirrors of a run cost; `attachment.report()` has the products of the backward pass. */
export interface MirrorReport {
  /** Each site that was mirrored, from the input on. */
  readonly sites: readonly MirrorSite[];
}

/** B of one site, and what it did in the run. */
interface Mirror {
  readonly site: Site;
  readonly b: tf.Variable;
  /** Has a step looked into it? A first layer computes no dX, so its mirror is never looked into. */
  used: boolean;
  multiplyAdds: number;
  angle?: number;
}

const NAME = 'weightMirror';
const SOURCE =
  'Akrout, Wilson, Humphreys, Lillicrap, Tweed: Deep Learning without Weight Transport, NeurIPS 2019, arXiv 1904.05391, weight mirror';

/** n vectors of ±1 in equal parts: mean 0, variance 1, and of all such laws the one with the least error of the estimate. */
function noise(seed: number, step: number, site: Site, n: number, length: number): tf.Tensor2D {
  // Not of the rank: every rank of a run keeps the same B.
  const random = stream(seed, NAME, step, site.index);
  const values = new Float32Array(n * length);
  let word = 0;
  for (let i = 0; i < values.length; i++) {
    if (i % 32 === 0) word = random.seed();
    values[i] = (word >>> (i % 32)) & 1 ? 1 : -1;
  }
  return tf.tensor2d(values, [n, length]);
}

/** B ← (1 − λ)·B + η/n·Xᵀ(X·W): W is used to send noise forward, and for nothing else. Returns the multiply-adds. */
function mirrorOnce({ site, b }: Mirror, { clock, seed }: Scope, eta: number, lambda: number, n: number): number {
  const units = site.kernel.shape.at(-1) as number;
  const length = site.kernel.size / units;
  tf.tidy(() => {
    const x = noise(seed, clock.step, site, n, length);
    const y = tf.matMul(x, tf.reshape(site.kernel, [length, units]));
    const correlations = tf.reshape(tf.matMul(x, y, true), site.kernel.shape);
    // An SGD step of rate −η/n; its decay is a multiple of the rate.
    const hyperparameters = { learningRate: -eta / n, momentum: 0, nesterov: false, weightDecay: (-lambda * n) / eta };
    sgdUpdate(b, correlations, undefined, hyperparameters);
  });
  return 2 * n * length * units;
}

/** The mirrors of one run. */
interface Mirrors extends Required<Pick<Opened<MirrorReport>, 'state' | 'report' | 'dispose'>> {
  /** B of a site; in a pass that only `looks` it does not count as used. */
  matrixOf(site: Site, looks: boolean): tf.Tensor;
  /** Mirrors each weight whose B a step has used. */
  step(scope: Scope): void;
}

/** Refuses a site whose B would not be kept: that of a frozen weight. */
function refuseFrozen({ name }: Site): never {
  throw new FrugalError(
    'CONFIG',
    `${NAME}: expected site ${name} to be trained but its weight is frozen, and its mirror could not be kept in checkpoints. Let this method skip the site.`,
  );
}

function openMirrors({ sites, params }: RunContext, { accepts, eta, lambda, n, every, onMeasure }: Settings): Mirrors {
  const trained = new Set(params.map(({ value }) => value));
  const mirrors = new Map(
    sites
      .filter((site) => trained.has(site.kernel) && accepts(site))
      .map((site): [Site, Mirror] => {
        const b = tf.tidy(() => tf.variable(tf.zerosLike(site.kernel), false));
        return [site, { site, b, used: false, multiplyAdds: 0 }];
      }),
  );
  const all = [...mirrors.values()];
  const measure = (mirror: Mirror, step: number): void => {
    const { site, b } = mirror;
    const cosine = cosineOf(b.dataSync(), site.kernel.dataSync());
    mirror.angle = degrees(cosine);
    onMeasure?.({ step, site: site.name, cosine, angle: mirror.angle });
  };
  return {
    matrixOf(site, looks) {
      const mirror = mirrors.get(site) ?? refuseFrozen(site);
      if (!looks) mirror.used = true;
      return mirror.b;
    },
    step(scope) {
      const { clock } = scope;
      for (const mirror of all.filter(({ used }) => used)) {
        mirror.multiplyAdds += mirrorOnce(mirror, scope, eta(clock), lambda(clock), n);
        if (every !== undefined && clock.step % every === 0) measure(mirror, clock.step);
      }
    },
    state: () => new Map(all.map(({ site, b }) => [`${NAME}/${site.index}`, b])),
    report: () => ({ sites: all.filter(({ multiplyAdds }) => multiplyAdds > 0).map(mirrorSite) }),
    dispose: () => all.forEach(({ b }) => b.dispose()),
  };
}

const mirrorSite = ({ site, b, multiplyAdds, angle }: Mirror): MirrorSite => ({
  site: site.name,
  bytes: 4 * b.size,
  multiplyAdds,
  ...(angle !== undefined && { angle }),
});

/** The options, checked. */
function settings(options: WeightMirrorOptions) {
  checkOptions(NAME, options, ['rate', 'decay', 'samples', 'skip', 'measureEvery', 'onMeasure']);
  const { rate = 0.01, skip } = options;
  const eta = hyper(NAME, 'rate', rate, { min: 0, max: 1, aboveMin: true });
  const every = options.measureEvery;
  return {
    eta,
    lambda: options.decay === undefined ? eta : hyper(NAME, 'decay', options.decay, { min: 0, max: 1 }),
    n: checkInteger(NAME, 'samples', options.samples ?? 32, { min: 1 }),
    every: every === undefined ? undefined : checkInteger(NAME, 'measureEvery', every, { min: 1 }),
    accepts: (site: Site): boolean => !(skip?.(site) ?? false),
    onMeasure: options.onMeasure,
  };
}

type Settings = ReturnType<typeof settings>;

/**
 * Weight mirror: back-propagation by matrices that learn to follow the weights without reading them,
 *   dX = dY·Bᵀ,   and once in each step, before the weights move,   B ← (1 − λ)·B + η/n·Xᵀ(X·W)
 * with dY [N, M], B and W [K, M], and X [n, K] noise of mean 0 and variance 1. E[XᵀX]/n = 1, so B goes to η/λ·W, with an
 * error of about √(η·K/(2n)) of it: 18° for K = 640 and the defaults. The mirror sees the layer without bias and
 * activation. Convolutions: K is a patch, H·W·C, on which the layer makes one output.
 *
 * Biased. B begins at zero, so the first step moves only the output layer; it follows W over some 1/η steps. Sites of frozen
 * weights are refused. Noise is drawn from (seed of the run, step, site); B is kept in checkpoints. The mirror steps in a
 * `gradient` link that the method brings, which changes no gradient.
 *
 * Cost: the multiply-adds of the exact dX, 2·n·K·M for each site and step for the mirror, which the method's report,
 * `report.of(method)`, counts and `attachment.report()` does not, and memory of a second W, also at the first layer,
 * which needs none. Not together with another rule that replaces dX at the same site.
 *
 * @param options - see {@link WeightMirrorOptions}
 * @throws FrugalError `CONFIG`
 * @example
 * ```ts
 * await train(mlp({ hidden: [128, 128] }), data.train, { methods: [weightMirror()], optimizer, epochs: 3 });
 * ```
 */
export function weightMirror(options: WeightMirrorOptions = {}): Method<MirrorReport> {
  const settled = settings(options);
  // One opened state for the method, which owns it, and its link.
  const key = {};
  const mirrorsOf = (context: RunContext): Mirrors => context.once(key, () => openMirrors(context, settled));
  const link: GradientLink = {
    kind: 'gradient',
    name: NAME,
    open(context) {
      const { step } = mirrorsOf(context);
      return {
        transform(gradients, scope) {
          step(scope);
          return new Map(gradients);
        },
      };
    },
  };
  return {
    name: NAME,
    source: SOURCE,
    links: [link],
    open(context) {
      const { matrixOf, state, report, dispose } = mirrorsOf(context);
      const rule: Rule = {
        name: NAME,
        bias: 'biased',
        accepts: settled.accepts,
        inputGrad: ({ site, exact, count }, dy, _w, xShape) =>
          exact.inputGrad(dy, matrixOf(site, count === undefined), xShape),
      };
      return { rule, state, report, dispose };
    },
  };
}
