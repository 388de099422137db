import type { Link } from './link.js';
import type { Opened, Reporting, RunContext } from './opened.js';
import type { Probe, WholeStep } from './pass.js';
import type { Observer, Rule } from './rule.js';

/** What a method plugs into the training step of one run. */
export interface OpenedMethod<Report = unknown> extends Opened<Report> {
  /** Seam 1: replaced products. */
  readonly rule?: Rule;
  /** Seam 1: observed products. */
  readonly observer?: Observer;
  /** Further passes over the batch of a step, before and after it. Need `train` or `stepper`. */
  readonly probes?: readonly Probe[];
  /** Seam 4: the whole step. Needs `train` or `stepper`. */
  readonly step?: WholeStep;
}

/**
 * What one paper plugs into the training step, at any of the four seams: an immutable description, made by a factory, as in
 * `topK({ keep: 0.5 })`, that each run opens for itself.
 */
export interface Method<Report = unknown> extends Reporting<Report> {
  /** Authors, year, arXiv number, equations. */
  readonly source: string;
  /** Seams 2 and 3: links that stand at the head of the chain, or where they are listed in it. */
  readonly links?: readonly Link[];
  /** Opens it for one run. */
  open(context: RunContext): OpenedMethod<Report>;
}
