import type { Clock, LinearAlgebra, Param, Schedule, Scope, Site } from '@frugal/core';
import type { Clockwork } from './clockwork.js';
import type { Corrections } from './corrections.js';
import type { KeptCounts } from './counts.js';
import type { Decompositions } from './decompositions.js';
import type { Factors } from './factors.js';
import type { Form } from './form.js';
import type { Layer } from './layers.js';
import type { Sums } from './observe.js';
import type { Settings } from './options.js';
import type { Seen } from './seen.js';

/** What a step of K-FAC works on. */
export interface Parts {
  readonly settings: Settings;
  readonly layers: readonly Layer[];
  readonly factors: Factors;
  readonly decompositions: Decompositions;
  readonly counts: KeptCounts;
  /** γ of now. */
  readonly damping: Schedule;
  readonly clockwork: Clockwork;
  readonly form: Form;
  /** What decomposes. Throws `CONFIG` before it was loaded. */
  algebra(): LinearAlgebra;
  /** Does this step update factors? */
  due(clock: Clock): boolean;
  /** The learning rate by which a weight moves. */
  rateOf(param: Param): Schedule;
  /** What the passes of this step have shown. */
  readonly seen: Seen;
  /** The same of one site. */
  seenOf(scope: Scope, site: Site): Sums | undefined;
  /** S of each layer in place of λ_A·λ_Gᵀ, for EK-FAC. */
  readonly corrections: Corrections | undefined;
}
