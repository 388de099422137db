import type { Counts, Product } from './geometry.js';
import type { Observer, Rule } from './rule.js';
import { openScope, type Scope } from './scope.js';
import type { Site } from './site.js';

/** What layers ask for while a pass runs through them. */
export interface RunningPass {
  readonly scope: Scope;
  /** Is a final softmax left out? */
  readonly logits: boolean;
  /** Does somebody count what is multiplied? Not in a pass that only looks. */
  readonly counts: boolean;
  /** The rule of a site in this pass. */
  ruleOf(rule: Rule | undefined): Rule | undefined;
  /** Who looks, beside those who look at every pass. */
  readonly observers: readonly Observer[];
  /** Number of the next layer that draws. */
  nextDraw(): number;
  /** Key of the next call of a site: its index, and how often the pass has come by. */
  keyOf(site: Site): string;
}

/** How a pass runs. */
export interface PassMode {
  readonly logits: boolean;
  readonly counts: boolean;
  readonly rules: 'on' | 'off';
  readonly observers: readonly Observer[];
}

/** Starts a pass: nothing was drawn, no site was called. */
export function startPass(scope: Scope, { rules, ...mode }: PassMode): RunningPass {
  const uses = new Map<Site, number>();
  let draws = 0;
  return {
    scope,
    ...mode,
    ruleOf: (rule) => (rules === 'on' ? rule : undefined),
    nextDraw: () => draws++,
    keyOf(site) {
      const use = uses.get(site) ?? 0;
      uses.set(site, use + 1);
      return `${site.index}/${use}`;
    },
  };
}

/** A scope that draws what another one draws, and shares nothing with it. */
export function scopeLike({ clock, seed, rank, share }: Scope): Scope {
  return openScope(clock, seed, rank, share);
}

/** What is multiplied at one site, and what exact training would multiply. */
export interface Tally {
  readonly site: Site;
  readonly rule: Rule | undefined;
  readonly done: Counts;
  readonly exact: Counts;
}

const zero = (): Counts => ({ forward: 0, inputGrad: 0, weightGrad: 0 });

/** An empty tally. */
export const tallyOf = (site: Site, rule: Rule | undefined): Tally => ({ site, rule, done: zero(), exact: zero() });

/** Sets the counts of a tally to zero. */
export function clearTally({ done, exact }: Tally): void {
  Object.assign(done, zero());
  Object.assign(exact, zero());
}

/** Adds up the three products. */
export const total = (counts: Counts): number => counts.forward + counts.inputGrad + counts.weightGrad;

/** Adds to a count. */
export const countInto =
  (done: Counts) =>
  (product: Product, multiplyAdds: number): void =>
    void (done[product] += multiplyAdds);

/** Counts that nobody reads. */
export const nowhere = (): Counts => zero();
