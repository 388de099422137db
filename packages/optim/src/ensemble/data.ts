import { checkInteger, checkNumber, checkOptions, type Dataset, stream } from '@frugal/core';

/** Options of {@link sine} and {@link mexicanHat}. */
export interface CurveOptions {
  /** Examples, evenly spaced. Default 100. */
  readonly length?: number;
  /** Standard deviation of the noise on the training targets. Default 0.05. */
  readonly noise?: number;
  /** Seed of the noise. Default 0. */
  readonly seed?: number;
}

/** A curve to learn: noisy examples, and the curve itself. */
export interface Curve {
  /** Noisy examples on the grid. */
  readonly train: Dataset;
  /** The function without noise, on the same grid. */
  readonly test: Dataset;
}

function curve(name: string, half: number, f: (x: number) => number, options: CurveOptions): Curve {
  checkOptions(name, options, ['length', 'noise', 'seed']);
  const length = checkInteger(name, 'length', options.length ?? 100, { min: 2 });
  const noise = checkNumber(name, 'noise', options.noise ?? 0.05, { min: 0 });
  const random = stream(checkInteger(name, 'seed', options.seed ?? 0), name);
  const inputs = Float32Array.from({ length }, (_, i) => half * ((2 * i) / (length - 1) - 1));
  const clean = inputs.map(f);
  const make = (targets: Float32Array, origin: string): Dataset => ({
    name,
    origin,
    length,
    shape: [1],
    inputs,
    normalize: { mean: [0], std: [half / 3] },
    targets,
  });
  return {
    train: make(
      clean.map((y) => y + noise * random.normal()),
      `made, noise ${noise}`,
    ),
    test: make(clean, 'made, no noise'),
  };
}

/**
 * y = sin(x) on [−π, π], inputs scaled to [−3, 3].
 *
 * Source: the first test function of Chen et al. 2020, arXiv 2010.02626; number of points and noise are ours.
 */
export function sine(options: CurveOptions = {}): Curve {
  return curve('sine', Math.PI, Math.sin, options);
}

/**
 * The Mexican hat y = 2/(√3·π^¼)·(1 − x²)·exp(−x²/2) on [−5, 5], inputs scaled to [−3, 3].
 *
 * Source: the second test function of Chen et al. 2020, arXiv 2010.02626; number of points and noise are ours.
 */
export function mexicanHat(options: CurveOptions = {}): Curve {
  const height = 2 / (Math.sqrt(3) * Math.PI ** 0.25);
  return curve('mexicanHat', 5, (x) => height * (1 - x * x) * Math.exp((-x * x) / 2), options);
}
