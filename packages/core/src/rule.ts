import type * as tf from '@tensorflow/tfjs';
import { FrugalError } from './errors.js';
import type { ExactProducts } from './products.js';
import type { Scope } from './scope.js';
import type { Site } from './site.js';

/** One evaluation of a site in one step. */
export interface Call<Plan = unknown> {
  /** The weight and its layer. */
  readonly site: Site;
  /** The exact products of the site; what they multiply is counted. */
  readonly exact: ExactProducts;
  /** The step. */
  readonly scope: Scope;
  /** What `rule.plan` returned. */
  plan?: Plan;
}

/**
 * Seam 1: replaces one or more of the three products at a site. A missing member means: exact. Members are called
 * inside `tf.tidy`; dense operands come as matrices (higher ranks are flattened to [rows, features]).
 */
export interface Rule<Plan = unknown> {
  /** Name, for reports and errors. */
  readonly name: string;
  /** Is the gradient that it yields unbiased? */
  readonly bias: 'unbiased' | 'biased';
  /** Chooses, before Y: plain data, never tensors; visible to all three products as `call.plan`. */
  plan?(call: Call<Plan>, x: tf.Tensor, w: tf.Tensor): Plan;
  /** Y in place of X·W. */
  forward?(call: Call<Plan>, x: tf.Tensor, w: tf.Tensor): tf.Tensor;
  /** dX in place of dY·Wᵀ. */
  inputGrad?(call: Call<Plan>, dy: tf.Tensor, w: tf.Tensor, xShape: readonly number[]): tf.Tensor;
  /** dW in place of Xᵀ·dY. */
  weightGrad?(call: Call<Plan>, x: tf.Tensor, dy: tf.Tensor, wShape: readonly number[]): tf.Tensor;
  /** Does the rule act at this site? Default: everywhere. */
  accepts?(site: Site): boolean;
}

/** Looks at x and dy of every call of a site, and touches neither. It borrows them: to keep one, `scope.keep(name, x)`. */
export interface Observer {
  /** Name, for reports and errors. */
  readonly name: string;
  /** Called once a call of the site has its dY. */
  onBackward(call: Call, x: tf.Tensor, dy: tf.Tensor): void;
}

const PRODUCTS = ['forward', 'inputGrad', 'weightGrad'] as const;

/**
 * The rules that act at one site as one rule. Two rules that replace the same product are an error with both names.
 *
 * @throws {@link FrugalError} `CONFLICT`
 */
export function mergeRules(site: Site, rules: readonly Rule[]): Rule | undefined {
  const active = rules.filter((rule) => rule.accepts?.(site) ?? true);
  const [first, ...rest] = active;
  if (first === undefined || rest.length === 0) return first;
  for (const product of PRODUCTS) {
    const owners = active.filter((rule) => rule[product] !== undefined);
    if (owners.length > 1) {
      throw new FrugalError(
        'CONFLICT',
        `Both ${owners[0]?.name} and ${owners[1]?.name} replace the product ${product} at site ${site.name}; only one rule may. Drop one, or let one skip this site.`,
      );
    }
  }
  return together(active);
}

/** Rules of disjoint products: each sees its own plan. */
function together(rules: readonly Rule[]): Rule {
  const own = (call: Call, index: number): Call => ({
    ...call,
    plan: (call.plan as readonly unknown[] | undefined)?.[index],
  });
  const pick = (product: (typeof PRODUCTS)[number]): number => rules.findIndex((rule) => rule[product] !== undefined);
  const [f, i, w] = PRODUCTS.map(pick) as [number, number, number];
  return {
    name: rules.map((rule) => rule.name).join(' + '),
    bias: rules.some((rule) => rule.bias === 'biased') ? 'biased' : 'unbiased',
    plan: (call, x, kernel) => rules.map((rule, index) => rule.plan?.(own(call, index), x, kernel)),
    ...(f >= 0 && { forward: (call, x, kernel) => (rules[f] as Required<Rule>).forward(own(call, f), x, kernel) }),
    ...(i >= 0 && {
      inputGrad: (call, dy, kernel, shape) => (rules[i] as Required<Rule>).inputGrad(own(call, i), dy, kernel, shape),
    }),
    ...(w >= 0 && {
      weightGrad: (call, x, dy, shape) => (rules[w] as Required<Rule>).weightGrad(own(call, w), x, dy, shape),
    }),
  } satisfies Rule;
}
