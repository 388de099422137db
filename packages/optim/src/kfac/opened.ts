import type { Communicator, Param, Schedule, State } from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';
import { restore, runNow } from './advance.js';
import { createClockwork } from './clockwork.js';
import { type Basis, createCorrections } from './corrections.js';
import { createCounts } from './counts.js';
import { createDecompositions } from './decompositions.js';
import { eigenForm } from './eigen.js';
import { createFactors, type Factors } from './factors.js';
import { inverseForm } from './inverse.js';
import { type Layer, layersOf, type PassedThrough } from './layers.js';
import { type AdaptiveDamping, createAdaptiveDamping, isAdaptive } from './levenberg-marquardt.js';
import type { Settings } from './options.js';
import type { Parts } from './parts.js';
import { type KfacReport, NOTHING, reportOf } from './report.js';
import { openTeam, type Team } from './team.js';

/** What a method has between init and dispose, and what it tells of it also afterwards. */
export interface Opened {
  readonly factors: Factors;
  /** γ that adapts, if it does. */
  readonly adaptive: AdaptiveDamping | undefined;
  /** γ of a step. */
  readonly damping: Schedule;
  /** Makes parts for these weights, and frees the ones before. */
  init(params: readonly Param[]): Parts;
  /** The parts, made where there are none yet. */
  of(params: readonly Param[]): Parts;
  /** The team of these ranks; undefined for one. All must call. */
  teamOf(parts: Parts, communicator: Communicator): Promise<Team | undefined>;
  state(): State;
  /** Of now, or of the end of the run before. */
  report(): KfacReport;
  dispose(): void;
}

/** What exists between init and dispose. */
interface Run {
  readonly parts: Parts;
  readonly passed: readonly PassedThrough[];
  team?: { readonly communicator: Communicator; readonly team: Team };
}

/** The eigenbasis of a site, once it is installed. */
function basisOf(parts: Parts, site: string): Basis | undefined {
  // The first backward pass after a checkpoint was loaded comes before the chain.
  runNow(restore(parts, undefined));
  const { layers, decompositions } = parts;
  const index = layers.findIndex((layer) => layer.site.name === site);
  const { a, g } = decompositions.of(index) ?? { a: [], g: [] };
  return a[0] && g[0] ? { a: a[0] as tf.Tensor2D, g: g[0] as tf.Tensor2D } : undefined;
}

/** The parts of a run that stay over several; `now` gives all of the one that goes on, if one does. */
function lasting(settings: Settings, now: () => Parts | undefined) {
  const { damping, correction, decay, lossReduction } = settings;
  const corrections =
    correction &&
    createCorrections({
      ...correction,
      decay,
      lossReduction,
      basis: (site) => {
        const parts = now();
        return parts && basisOf(parts, site);
      },
    });
  const factors = createFactors(settings, corrections?.observe);
  const counts = createCounts('kfac/counts');
  const adaptive = isAdaptive(damping) ? createAdaptiveDamping(damping) : undefined;
  const form = settings.form === 'eigen' ? eigenForm : inverseForm;
  const gamma: Schedule = isAdaptive(damping) ? () => (adaptive as AdaptiveDamping).value() : damping;
  const partsOf = (layers: readonly Layer[]): Parts => ({
    settings,
    layers,
    factors,
    counts,
    damping: gamma,
    clockwork: createClockwork(),
    form,
    decompositions: createDecompositions(form, layers),
    corrections,
  });
  return { factors, counts, adaptive, gamma, corrections, partsOf };
}

/** Opens what the options ask for; nothing is made before init. */
export function open(settings: Settings): Opened {
  let run: Run | undefined;
  const { factors, counts, adaptive, gamma, corrections, partsOf } = lasting(settings, () => run?.parts);
  let last = NOTHING;
  const report = (): KfacReport => (run ? reportOf(run.parts, run.passed, run.team?.team) : last);
  const dispose = (): void => {
    last = report();
    run?.parts.decompositions.dispose();
    for (const part of [factors, counts, adaptive, corrections]) part?.dispose();
    run = undefined;
  };
  const init = (params: readonly Param[]): Parts => {
    dispose();
    const { layers, passed } = layersOf(params, settings);
    factors.init(layers);
    counts.init();
    adaptive?.init(layers, factors.averages, params);
    corrections?.init(layers);
    run = { parts: partsOf(layers), passed };
    return run.parts;
  };
  return {
    factors,
    adaptive,
    damping: gamma,
    init,
    of: (params) => run?.parts ?? init(params),
    async teamOf({ layers, form }, communicator) {
      if (communicator.size === 1 || !run || !settings.distribution) return undefined;
      if (run.team?.communicator !== communicator) {
        run.team = { communicator, team: await openTeam(communicator, layers, form, settings.distribution) };
      }
      return run.team.team;
    },
    state: () =>
      new Map([...factors.state(), ...counts.state(), ...(adaptive?.state() ?? []), ...(corrections?.state() ?? [])]),
    report,
    dispose,
  };
}
