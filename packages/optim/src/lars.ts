import { checkOptions, FrugalError, type GradientLink, type Hyper, hyper, type Param } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** Options of {@link lars}. */
export interface LarsOptions {
  /** Trust coefficient η > 0. Default 0.001, as in the paper. */
  readonly trust?: Hyper;
  /** λ ≥ 0, coupled: λ·w joins the gradient before it is scaled. Default 0; the paper's runs have 5e-4. */
  readonly weightDecay?: Hyper;
  /** ε > 0, in the denominator. Default 1e-8, as in PyTorch Lightning Bolts; the paper has none. */
  readonly epsilon?: Hyper;
  /** Which weights pass as they are. Default: those of rank ≤ 1, which are biases, gains and shifts. */
  readonly exclude?: (param: Param) => boolean;
}

const KNOWN = ['trust', 'weightDecay', 'epsilon', 'exclude'];

const isVector = ({ value }: Param): boolean => value.shape.length <= 1;

function filterOf(exclude: LarsOptions['exclude'] = isVector): (param: Param) => boolean {
  if (typeof exclude === 'function') return exclude;
  throw new FrugalError(
    'CONFIG',
    `lars: expected exclude to be a function of a Param but received ${String(exclude)}. For none, pass () => false.`,
  );
}

const norm = (x: tf.Tensor): tf.Tensor => x.square().sum().sqrt();

/**
 * Layer-wise adaptive rate scaling: the gradients u of each weight w are as long, relative to w, as those of every other,
 *
 *   u ← η·|w| / (|u| + λ·|w| + ε) · (u + λ·w),
 *
 * with Euclidean norms over the whole weight, so that large learning rates of large batches do not blow up the layers with
 * small weights. Shapes stay. A weight that is all zeros has the factor 1 in place of 0: it could never leave zero. Biased,
 * as every rescaling of a stochastic gradient by itself.
 *
 * A `gradient` link: it stands before {@link sgd}, which has the global learning rate and the momentum but no weight decay,
 * and after a link that sums gradients over ranks, since it is not linear in u. Here and there λ·w joins the gradient. Not with Adam, which divides the scale out again.
 *
 * Defaults: η = 0.001 (the paper), λ = 0, ε = 1e-8. No state. Cost: about 8 FLOP per weight; norms are not read back.
 *
 * Source: You, Gitman, Ginsburg 2017, Large Batch Training of Convolutional Networks, arXiv 1708.03888,
 * Algorithm 1.
 *
 * @throws `CONFIG` for an unknown option or a value outside its range (a schedule's: when read, with its step)
 * @example
 * ```ts
 * await train(model, data, { optimizer: [lars({ weightDecay: 5e-4 }), sgd({ learningRate: 5, momentum: 0.9 })], epochs: 5 });
 * ```
 */
export function lars(options: LarsOptions = {}): GradientLink {
  checkOptions('lars', options, KNOWN);
  const trust = hyper('lars', 'trust', options.trust ?? 0.001, { min: 0, aboveMin: true });
  const weightDecay = hyper('lars', 'weightDecay', options.weightDecay ?? 0, { min: 0 });
  const epsilon = hyper('lars', 'epsilon', options.epsilon ?? 1e-8, { min: 0, aboveMin: true });
  const excluded = filterOf(options.exclude);
  const adapt = (u: tf.Tensor, w: tf.Tensor, eta: number, lambda: number, eps: number): tf.Tensor => {
    const size = norm(w);
    const factor = size.mul(eta).div(norm(u).add(size.mul(lambda)).add(eps));
    const decayed = lambda === 0 ? u : u.add(w.mul(lambda));
    return decayed.mul(tf.where(size.greater(0), factor, tf.onesLike(factor)));
  };
  return {
    kind: 'gradient',
    name: 'lars',
    open: ({ params }) => ({
      transform(gradients, { clock }) {
        const [eta, lambda, eps] = [trust(clock), weightDecay(clock), epsilon(clock)];
        const result = new Map(gradients);
        for (const param of params) {
          const u = gradients.get(param.name);
          if (u && !excluded(param)) result.set(param.name, adapt(u, param.value, eta, lambda, eps));
        }
        return result;
      },
      hyperparameters: ({ clock }) => ({ trust: trust(clock) }),
    }),
  };
}
