import type { Phase } from './clockwork.js';
import type { PassedThrough } from './layers.js';
import type { Parts } from './parts.js';
import type { SentBytes, Team } from './team.js';

/** What K-FAC has on one rank, and what it took. */
export interface KfacReport {
  /** The layers that are preconditioned, with the sizes of A and G. */
  readonly layers: readonly { readonly weight: string; readonly a: number; readonly g: number }[];
  /** The weights whose gradients pass as they are, each with the reason. */
  readonly passed: readonly PassedThrough[];
  /** Updates of factors that were made. */
  readonly updates: number;
  /** Decompositions that were begun. */
  readonly decompositions: number;
  /** Bytes of running averages and of what was last decomposed. */
  readonly factorBytes: number;
  /** Bytes of decompositions on this rank. */
  readonly decompositionBytes: number;
  /** Bytes handed to other ranks. */
  readonly sent: SentBytes;
  /** Milliseconds in the chain, by phase; the products of factors run in the backward pass and are not in it. */
  readonly milliseconds: Record<Phase, number>;
}

const NOTHING_SENT: SentBytes = { factors: 0, decompositions: 0, gradients: 0 };

/** What there is to report before the first step. */
export const NOTHING: KfacReport = {
  layers: [],
  passed: [],
  updates: 0,
  decompositions: 0,
  factorBytes: 0,
  decompositionBytes: 0,
  sent: NOTHING_SENT,
  milliseconds: { factors: 0, decompose: 0, precondition: 0, exchange: 0 },
};

/** The report of now. */
export function reportOf(parts: Parts, passed: readonly PassedThrough[], team: Team | undefined): KfacReport {
  const { updates, begun } = parts.counts.now();
  const numbers = [...parts.factors.state().values()].reduce((sum, { size }) => sum + size, 0);
  return {
    layers: parts.layers.map(({ name, a, g }) => ({ weight: name, a, g })),
    passed,
    updates,
    decompositions: begun,
    factorBytes: 4 * numbers,
    decompositionBytes: parts.decompositions.bytes(),
    sent: team?.sent() ?? NOTHING_SENT,
    milliseconds: parts.clockwork.milliseconds(),
  };
}
