import type { Schedule } from '@frugal/core';
import type { Clockwork } from './clockwork.js';
import type { Corrections } from './corrections.js';
import type { KeptCounts } from './counts.js';
import type { Decompositions } from './decompositions.js';
import type { Factors } from './factors.js';
import type { Form } from './form.js';
import type { Layer } from './layers.js';
import type { Settings } from './options.js';

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
  /** S of each layer in place of λ_A·λ_Gᵀ, for EK-FAC. */
  readonly corrections: Corrections | undefined;
}
