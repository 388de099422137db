import { checkOptions, type Method, type Site, stream } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { type Scale, scaleOf } from './matrix.js';

/** Options of {@link feedbackAlignment}. */
export interface FeedbackAlignmentOptions {
  /** Factor of the matrices, for all sites or for each. Default 1. */
  readonly scale?: Scale;
  /** Sites whose dX stays dY·Wᵀ. Default none. */
  readonly skip?: (site: Site) => boolean;
}

const SOURCE =
  'Lillicrap, Cownden, Tweed, Akerman: Random synaptic feedback weights support error backpropagation for deep learning, Nature Communications 7, 2016, arXiv 1411.0247, equation 2';

/** Glorot's bound, with the window of a convolution counted into both fans. */
function boundOf(shape: readonly number[]): number {
  const window = shape.slice(0, -2).reduce((a, b) => a * b, 1);
  return Math.sqrt(6 / (window * ((shape.at(-2) as number) + (shape.at(-1) as number))));
}

/** The matrices of one run, each drawn once for a seed. */
function openMatrices(scale: (site: Site) => number): (site: Site, seed: number) => Float32Array {
  const drawn = new Map<Site, { seed: number; values: Float32Array }>();
  return (site, seed) => {
    const found = drawn.get(site);
    if (found?.seed === seed) return found.values;
    const random = stream(seed, 'feedbackAlignment', site.index);
    const bound = boundOf(site.kernel.shape) * scale(site);
    const values = Float32Array.from({ length: site.kernel.size }, () => (2 * random.next() - 1) * bound);
    drawn.set(site, { seed, values });
    return values;
  };
}

/**
 * Feedback alignment: back-propagation by a fixed random matrix of the shape of W,
 *   dX = dY·Bᵀ,   B ~ U(−b, b),  b = √(6 / (fan-in + fan-out)), the law of Glorot's weights
 * with dY [N, M] and B [K, M], or the same of a convolution. Biased. The multiply-adds of the exact product; memory of a
 * second W. The matrices are drawn from (seed of the run, site). Not together with another rule that replaces dX at the
 * same site.
 *
 * @param options - see {@link FeedbackAlignmentOptions}
 * @throws FrugalError `CONFIG`
 */
export function feedbackAlignment(options: FeedbackAlignmentOptions = {}): Method {
  checkOptions('feedbackAlignment', options, ['scale', 'skip']);
  const { skip } = options;
  const scale = scaleOf('feedbackAlignment', options.scale ?? 1);
  return {
    name: 'feedbackAlignment',
    source: SOURCE,
    open() {
      const matrixOf = openMatrices(scale);
      return {
        rule: {
          name: 'feedbackAlignment',
          bias: 'biased',
          accepts: (site) => !(skip?.(site) ?? false),
          inputGrad: ({ site, exact, scope }, dy, w, xShape) =>
            exact.inputGrad(dy, tf.tensor(matrixOf(site, scope.seed), w.shape), xShape),
        },
      };
    },
  };
}
