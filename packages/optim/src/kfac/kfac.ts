import type { ExchangeLink, GradientLink, Method, RunContext } from '@frugal/core';
import { runAwaiting, runNow } from './advance.js';
import { type OpenedKfac, openKfac } from './opened.js';
import { type KfacOptions, settle, type Settings } from './options.js';
import type { KfacReport } from './report.js';

/** K-FAC as a method; a run tells its {@link KfacReport}. */
export interface KfacMethod extends Method<KfacReport> {
  /** The link, which stands first in the chain unless it is listed in it; on many ranks, list it after the link that sums gradients. */
  readonly link: GradientLink | ExchangeLink;
}

const SOURCE =
  'Martens, Grosse 2015, arXiv 1503.05671; Grosse, Martens 2016, arXiv 1602.01573 (convolutions); Pauloski et al. 2020, arXiv 2007.00784 (distribution, eigen form, klClip); Pauloski et al. 2021, arXiv 2107.01739 (gradient workers)';

/**
 * Kronecker-factored approximate curvature: gradients are multiplied by an approximate inverse of the Fisher matrix, block by
 * block of a layer. With x the rows of a dense layer or the patches of a convolution, followed by 1 where there is a bias,
 * and g the gradients of single examples' losses with respect to its outputs, over B examples and T positions:
 *
 *   A = 1/B·Σ x·xᵀ [a, a],  G = 1/(B·T)·Σ g·gᵀ [g, g],  F ≈ A ⊗ G;  running averages of both, α = min(1 − 1/k, decay)
 *   P = (A ⊗ G + γ·I)⁻¹·∇,  ∇ [a, g] the gradient of weight and bias
 *   ν = min(1, √(κ / (η²·Σ_layers Σ P ⊙ ∇)));  the links behind get ν·P, η the rate of the update that follows
 *
 * Shapes stay. Batch norm, and whatever `passed` of the report lists, gets its gradient as it is. Weight decay of `sgd` behind
 * joins what K-FAC has made of the gradient; that of `adamw` is decoupled. Biased, as every rescaling by a stochastic estimate. Do not combine it with
 * rules that change dX, as direct feedback does: G is of what the layer receives.
 *
 * With `distribution` the link exchanges: list it after `allReduce()`, on every rank; factors are summed over ranks weighted
 * by `scope.share`, so n ranks make the step of one with the batch of all, but for rounding (and for the draws of `fisher:
 * 'sampled'`). Without `distribution` each rank has factors of its own examples, and ranks drift apart.
 *
 * Defaults: α 0.95, κ 0.001, intervals 10 and 100, eigen form, empirical Fisher are Pauloski et al.'s; γ = 0.003 that of their
 * CIFAR-10 runs. Their later code drops the factor B that takes dY of a mean loss to g of one example, and so divides the Fisher matrix by
 * B²: not so here.
 *
 * Cost: per step 2·a·g·(a + g) multiply-adds (half of that in the inverse form) and one more pass over gradients per layer; per update of factors B·T·(a² + g²)
 * (a fifth of that for 3×3 windows of stride 1 on the native engine); per decomposition about 9·(a³ + g³) in double precision. Memory: 3 matrices of each factor's size.
 *
 * Source: Martens and Grosse 2015, arXiv 1503.05671; Grosse and Martens 2016, arXiv 1602.01573; Pauloski et al. 2020, arXiv
 * 2007.00784, section IV; Pauloski et al. 2021, arXiv 2107.01739.
 *
 * @throws FrugalError `CONFIG` for an unknown option or a value outside its range, and under `fit` without
 * `await optimizer.prepare()`, which loads the linear algebra
 * @example
 * ```ts
 * const method = kfac();
 * const report = await train(model, data, {
 *   methods: [method],
 *   optimizer: sgd({ learningRate: '0.1 * (1 - t)', momentum: 0.9 }),
 *   epochs: 10,
 * });
 * console.log(report.of(method).passed);
 * ```
 */
export function kfac(options: KfacOptions = {}): KfacMethod {
  return methodOf('kfac', SOURCE, settle(options));
}

/** The method of these settings. */
export function methodOf(name: string, source: string, settings: Settings): KfacMethod {
  // Observer and link of one run share what the run has opened.
  const key = {};
  const openedIn = (context: RunContext): OpenedKfac => context.once(key, () => openKfac(settings, context));
  const opening = (context: RunContext) => {
    const { begin, prepare, damping, advance } = openedIn(context);
    const dispose = begin(context.params);
    return {
      advance,
      prepare,
      // Also where only the link is in the run, which is refused in its first step.
      dispose,
      hyperparameters: ({ clock }: Parameters<OpenedKfac['advance']>[1]) => ({ damping: damping(clock) }),
    };
  };
  const link: KfacMethod['link'] = settings.distribution
    ? {
        kind: 'exchange',
        name,
        open(context) {
          const { advance, ...rest } = opening(context);
          return { ...rest, exchange: (gradients, scope) => runAwaiting(advance(gradients, scope)) };
        },
      }
    : {
        kind: 'gradient',
        name,
        open(context) {
          const { advance, ...rest } = opening(context);
          return { ...rest, transform: (gradients, scope) => runNow(advance(gradients, scope)) };
        },
      };
  return {
    name,
    source,
    links: [link],
    link,
    open(context) {
      const { observer, probes, state, report, dispose } = openedIn(context);
      return { ...(observer && { observer }), probes, state, report, dispose };
    },
  };
}
