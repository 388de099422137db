import type { Site } from '@frugal/core';

/** What a feedback method did at one site in a run. */
export interface FeedbackSite {
  /** Name of the site. */
  readonly site: string;
  /** Values per example of the layer that receives the feedback. */
  readonly inputs: number;
  /** Length of the error e. */
  readonly errors: number;
  /** Multiplications that the method's arithmetic asks for. */
  readonly multiplies: number;
  /** Additions that it asks for: N·m·(C − 1), the first term of a sum being added to nothing. */
  readonly additions: number;
  /** Cosine between the feedback and dY·Wᵀ of the same dY, when last measured. */
  readonly cosine?: number;
}

/**
 * What a feedback method did in a run; passes that only look are not counted. Binary feedback needs no multiplication
 * beyond the scaling of e; that is what is reported, and what the native engine does (with fewer additions, where it
 * shares sums). Engines without a kernel of signs unpack the bits and run the product in floats: there `multiplies` is
 * a property of the method and not of the machine. `attachment.report()` counts N·C·m for every method, an addition
 * without a multiplication as one multiply-add.
 */
export interface FeedbackReport {
  /** Bytes in which the matrices are stored. */
  readonly bytes: number;
  /** Bytes of one float32 matrix per layer. */
  readonly floatBytes: number;
  /** Multiplications that the method's arithmetic asks for. */
  readonly multiplies: number;
  /** Additions that it asks for. */
  readonly additions: number;
  /** Each site, from the input on. */
  readonly sites: readonly FeedbackSite[];
}

/** One measurement of `measureEvery`. */
export interface Measurement {
  /** Step, from 0. */
  readonly step: number;
  /** Name of the site. */
  readonly site: string;
  /** Cosine between the feedback and dY·Wᵀ of the same dY. */
  readonly cosine: number;
  /** The same as an angle in degrees. */
  readonly angle: number;
}

interface Stored {
  readonly byteLength: number;
}

interface Entry {
  readonly stored: Stored;
  readonly site: FeedbackSite;
}

/** Collects what {@link FeedbackReport} tells. */
export interface Ledger {
  /** Counts one product. */
  count(
    site: Site,
    size: { rows: number; inputs: number; errors: number },
    matrix: { gain: number; stored: Stored },
  ): void;
  /** Notes a measurement. */
  measured(site: Site, cosine: number): void;
  /** What was collected. */
  report(): FeedbackReport;
}

/**
 * The ledger of one run.
 *
 * @param signs - do the matrices hold only ±1?
 */
export function ledger(signs: boolean): Ledger {
  const entries = new Map<Site, Entry>();
  return {
    count(at, { rows, inputs, errors }, { gain, stored }) {
      const before = entries.get(at)?.site;
      const scaling = gain === 1 ? 0 : rows * errors;
      const multiplies = (before?.multiplies ?? 0) + scaling + (signs ? 0 : rows * inputs * errors);
      const additions = (before?.additions ?? 0) + rows * inputs * (errors - 1);
      const site = { ...before, site: at.name, inputs, errors, multiplies, additions };
      entries.set(at, { stored, site });
    },
    measured(at, cosine) {
      const entry = entries.get(at);
      if (entry) entries.set(at, { ...entry, site: { ...entry.site, cosine } });
    },
    report() {
      const all = [...entries].sort(([a], [b]) => a.index - b.index).map(([, entry]) => entry);
      const sites = all.map(({ site }) => site);
      const total = (value: (site: FeedbackSite) => number): number =>
        sites.reduce((sum, site) => sum + value(site), 0);
      const buffers = new Set(all.map(({ stored }) => stored));
      return {
        bytes: [...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0),
        floatBytes: total(({ inputs, errors }) => 4 * inputs * errors),
        multiplies: total(({ multiplies }) => multiplies),
        additions: total(({ additions }) => additions),
        sites,
      };
    },
  };
}
