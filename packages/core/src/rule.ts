import type * as tf from '@tensorflow/tfjs';
import { FrugalError } from './errors.js';
import type { ExactProducts, Product } from './geometry.js';
import type { Selection } from './kernels/slices.js';
import type { Scope } from './scope.js';
import type { Site } from './site.js';

/**
 * What a plan may say of dW, as its member `sampled`: dW is zero outside of these slices of the weight. Then a link that
 * sends dW to other ranks may send these slices only.
 */
export interface SampledSlices {
  /** Axis of the weight. */
  readonly axis: number;
  /** The slices along it that are not zero, ascending; distinct, unless they are a tensor. */
  readonly indices: Selection['indices'];
}

/** What the plan of a site, out of `scope.plans`, says of its dW; undefined where that is dense. */
export function sampledSlices(plan: unknown): SampledSlices | undefined {
  return (plan as { readonly sampled?: SampledSlices } | null | undefined)?.sampled;
}

/** One evaluation of a site in one step. */
export interface Call<Plan = unknown> {
  /** The weight and its layer. */
  readonly site: Site;
  /** The exact products of the site; what they multiply is counted. */
  readonly exact: ExactProducts;
  /**
   * Counts multiply-adds that a rule does by other means than `exact`. Absent in a pass that only looks: there a rule must not
   * change its state either.
   */
  count?(product: Product, multiplyAdds: number): void;
  /** The step. */
  readonly scope: Scope;
  /**
   * Index of the site and number of its call within the pass, as in `3/0`. What a call draws comes from
   * `scope.random(name, call.key)`, so that every pass of a step draws the same, and a layer that is used twice draws twice.
   */
  readonly key: string;
  /** Rows of x that one example has: more than 1 where a dense x of higher rank was flattened. Default 1. */
  readonly rowsPerExample?: number;
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
  /**
   * Chooses, before Y: plain data, and tensors only where the scope keeps them; visible to all three products as `call.plan`, and to links in
   * `scope.plans`, where a member `sampled` tells them which slices of dW are not zero: see {@link SampledSlices}.
   */
  plan?(call: Call<Plan>, x: tf.Tensor, w: tf.Tensor): Plan;
  /**
   * What to multiply in place of x and w: a Y that is the exact product of less. Bias and activation are then fused into
   * it, which they are not into a `forward`. A rule has one of the two.
   */
  operands?(call: Call<Plan>, x: tf.Tensor, w: tf.Tensor): readonly [tf.Tensor, tf.Tensor];
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

const PRODUCTS = { forward: ['forward', 'operands'], inputGrad: ['inputGrad'], weightGrad: ['weightGrad'] } as const;
const MEMBERS = ['operands', 'forward', 'inputGrad', 'weightGrad'] as const;

/**
 * The rules that act at one site as one rule. Two rules that replace the same product are an error with both names.
 *
 * @throws {@link FrugalError} `CONFLICT`
 */
export function mergeRules(site: Site, rules: readonly Rule[]): Rule | undefined {
  const active = rules.filter((rule) => rule.accepts?.(site) ?? true);
  const [first, ...rest] = active;
  if (first === undefined || rest.length === 0) return first;
  for (const [product, members] of Object.entries(PRODUCTS)) {
    const owners = active.filter((rule) => members.some((member) => rule[member] !== undefined));
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
  const merged: Rule = {
    name: rules.map((rule) => rule.name).join(' + '),
    bias: rules.some((rule) => rule.bias === 'biased') ? 'biased' : 'unbiased',
    plan(call, x, w) {
      const plans = rules.map((rule, index) => rule.plan?.(withOwnPlan(call, index), x, w));
      // Only the rule that makes dW can know where it is zero.
      const sampled = plans.map(sampledSlices).find((slices) => slices !== undefined);
      return sampled ? Object.assign(plans, { sampled }) : plans;
    },
  };
  const members = MEMBERS.flatMap((member) => {
    const index = rules.findIndex((rule) => rule[member] !== undefined);
    if (index < 0) return [];
    const own = (rules[index] as Rule)[member] as (call: Call, ...rest: unknown[]) => unknown;
    return [[member, (call: Call, ...rest: unknown[]) => own(withOwnPlan(call, index), ...rest)]];
  });
  return Object.assign(merged, Object.fromEntries(members) as Partial<Rule>);
}

const withOwnPlan = (call: Call, index: number): Call => ({
  ...call,
  plan: (call.plan as readonly unknown[] | undefined)?.[index],
});
