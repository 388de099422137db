import type { Probe } from './probe.js';
import type { Observer, Rule } from './rule.js';
import type { StepMethod } from './step.js';
import type { Transform } from './transform.js';

/** What one paper plugs into the training step: any of the four seams. Made by a factory, as in `topK({ keep: 0.5 })`. */
export interface Method {
  /** Name, for reports and errors. */
  readonly name: string;
  /** Authors, year, arXiv number, equations. */
  readonly source: string;
  /** Seam 1: replaced products. */
  readonly rule?: Rule;
  /** Seam 1: observed products. */
  readonly observer?: Observer;
  /** Further passes over the batch of a step, before and after it. Need `train` or `stepper`. */
  readonly probes?: readonly Probe[];
  /** Seams 2 and 3: links that stand before the optimizer in the chain, or where they are listed in it. */
  readonly transforms?: readonly Transform[];
  /** Seam 4: the whole step. */
  readonly step?: StepMethod;
}
