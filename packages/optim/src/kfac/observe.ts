import { type Call, type Clock, gram, type Observer, type Scope } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { refusal } from './layers.js';
import type { Settings } from './options.js';

/** Sums over the calls of one site in one step. */
interface Seen {
  examples: number;
  positions: number;
}

const tensorName = (kind: string, site: string): string => `kfac/${kind}/${site}`;

function keepSum(scope: Scope, name: string, value: tf.Tensor): void {
  const before = scope.get(name);
  scope.keep(name, before ? tf.add(before, value) : value);
}

/** Sums of one site in one step. */
export interface Sums extends Readonly<Seen> {
  /** Σ a·aᵀ. */
  readonly a: tf.Tensor;
  /** Σ dY·dYᵀ. */
  readonly g: tf.Tensor;
}

/** What sees a call. */
export type OnBackward = (call: Call, x: tf.Tensor, dy: tf.Tensor) => void;

/** Looks at x and dY of every call, and keeps Σ a·aᵀ and Σ dY·dYᵀ until the end of the step. */
export function openObserver(settings: Settings, due: (clock: Clock) => boolean, also: OnBackward | undefined) {
  // By the kept Σ a·aᵀ, so that it ends with the step.
  const seen = new WeakMap<tf.Tensor, Seen>();
  let on = true;
  const onBackward: OnBackward = (call, x, dy) => {
    const { site, scope, rowsPerExample = 1 } = call;
    if (!on || !due(scope.clock) || refusal(site, settings) !== undefined) return;
    const { geometry, kernel } = site;
    const [nameA, nameG] = [tensorName('A', site.name), tensorName('G', site.name)];
    const before = seen.get(scope.get(nameA) as tf.Tensor)?.positions ?? 0;
    const examples = (x.shape[0] as number) / rowsPerExample;
    const positions = before + dy.size / (dy.shape.at(-1) as number) / examples;
    const window =
      geometry.kind === 'conv2d' ? { geometry, size: kernel.shape.slice(0, 2) as [number, number] } : undefined;
    keepSum(scope, nameA, gram(x, { ones: site.bias !== undefined, ...(window && { window }) }));
    keepSum(scope, nameG, gram(dy));
    seen.set(scope.get(nameA) as tf.Tensor, { examples, positions });
    also?.(call, x, dy);
  };
  return {
    observer: { name: 'kfac', onBackward } satisfies Observer,
    /** While false, it looks away. */
    watch: (value: boolean) => void (on = value),
    /** What was seen of a site in a step; undefined for nothing. */
    sums(scope: Scope, site: string): Sums | undefined {
      const [a, g] = [scope.get(tensorName('A', site)), scope.get(tensorName('G', site))];
      const counts = a && seen.get(a);
      return g && counts ? { a, g, ...counts } : undefined;
    },
  };
}
