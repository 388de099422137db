import { type Call, type Clock, gram, type Observer, type Scope, type Site } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { refusal } from './layers.js';
import type { Settings } from './options.js';
import { type Seen, stepOf } from './seen.js';

/** What was counted of one site in one step. */
interface Counted {
  /** Which step, by number and by what its parts share. */
  readonly step: number;
  readonly of: object;
  part: number;
  examples: number;
  positions: number;
}

const tensorName = (kind: string, { name }: Site): string => `kfac/${kind}/${name}`;

/** Sums of one site in one step. */
export interface Sums {
  /** Σ a·aᵀ. */
  readonly a: tf.Tensor;
  /** Σ dY·dYᵀ. */
  readonly g: tf.Tensor;
  /** Examples of the step. */
  readonly examples: number;
  /** Places in an example where the weight is applied, over all uses of the layer. */
  readonly positions: number;
}

/** What sees a call. */
export type OnBackward = (call: Call, x: tf.Tensor, dy: tf.Tensor) => void;

/** Counts a call: further uses of a layer are further positions, later parts of a step are further examples. */
function count(before: Counted | undefined, { scope, rowsPerExample = 1 }: Call, x: tf.Tensor, dy: tf.Tensor): Counted {
  const { step } = scope.clock;
  const examples = (x.shape[0] as number) / rowsPerExample;
  const positions = dy.size / (dy.shape.at(-1) as number) / examples;
  const of = stepOf(scope);
  if (before?.of !== of) return { step, of, part: scope.part, examples, positions };
  if (scope.part === 0) return { ...before, positions: before.positions + positions };
  if (scope.part === before.part) return before;
  return { ...before, part: scope.part, examples: before.examples + examples };
}

/** Looks at x and dY of every call, and sums a·aᵀ and dY·dYᵀ up. */
export function openObserver(
  settings: Settings,
  due: (clock: Clock) => boolean,
  seen: Seen,
  also: OnBackward | undefined,
) {
  const counts = new Map<Site, Counted>();
  const onBackward: OnBackward = (call, x, dy) => {
    const { site, scope } = call;
    if (!due(scope.clock) || refusal(site, settings) !== undefined) return;
    // Where the loss is a sum, dY of an example is the same in whatever part.
    const { lossScale } = scope;
    const own = settings.lossReduction === 'mean' && lossScale !== 1 ? tf.mul(dy, lossScale) : dy;
    counts.set(site, count(counts.get(site), call, x, dy));
    seen.add(scope, tensorName('A', site), site.geometry.gramOfInputs(x, site.kernel.shape, site.bias !== undefined));
    seen.add(scope, tensorName('G', site), gram(own));
    also?.(call, x, own);
  };
  return {
    observer: { name: 'kfac', onBackward } satisfies Observer,
    /** What was seen of a site in a step; undefined for nothing. */
    sums({ clock }: Scope, site: Site): Sums | undefined {
      const [a, g, counted] = [seen.get(tensorName('A', site)), seen.get(tensorName('G', site)), counts.get(site)];
      if (!a || !g || counted?.step !== clock.step) return undefined;
      const { examples, positions } = counted;
      return { a, g, examples, positions };
    },
  };
}
