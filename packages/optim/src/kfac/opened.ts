import {
  type Clock,
  linearAlgebra,
  type LinearAlgebra,
  type Observer,
  type Param,
  type Probe,
  type RunContext,
  type Schedule,
  type Scope,
  type Site,
  type State,
  unprepared,
  type Updates,
} from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';
import { advance, restore, runNow, type Waiting } from './advance.js';
import { createClockwork } from './clockwork.js';
import { type Basis, createCorrections } from './corrections.js';
import { createCounts } from './counts.js';
import { createDecompositions } from './decompositions.js';
import { eigenForm } from './eigen.js';
import { createFactors } from './factors.js';
import { sampledFisher } from './fisher.js';
import { inverseForm } from './inverse.js';
import { layersOf, type PassedThrough } from './layers.js';
import { type AdaptiveDamping, isAdaptive, openAdaptiveDamping } from './levenberg-marquardt.js';
import { openObserver } from './observe.js';
import type { Settings } from './options.js';
import type { Parts } from './parts.js';
import { type KfacReport, NOTHING, reportOf } from './report.js';
import { openSeen } from './seen.js';
import { openTeam, type Team } from './team.js';

/** K-FAC in one run: what its observer, its probes and its link share. */
export interface OpenedKfac {
  /** Sees the pass of the step; absent where a probe shows it a pass of its own. */
  readonly observer: Observer | undefined;
  readonly probes: readonly Probe[];
  /** Makes its parts for the weights of its link, and frees those before; the function that is returned frees them. */
  begin(params: readonly Param[]): () => void;
  /** Loads the linear algebra, and meets the other ranks. */
  prepare(): Promise<void>;
  /** One step: the new gradients, which are the caller's. */
  advance(gradients: Updates, scope: Scope): Waiting<Map<string, tf.Tensor>>;
  damping(clock: Clock): number;
  state(): State;
  report(): KfacReport;
  dispose(): void;
}

/** What exists once the link knows its weights. */
interface Running {
  readonly parts: Parts;
  readonly passed: readonly PassedThrough[];
  readonly adaptive: AdaptiveDamping | undefined;
  team?: Team;
}

/** The eigenbasis of a site, once it is installed. */
function basisOf(parts: Parts, site: Site): Basis | undefined {
  // The first backward pass after a checkpoint was loaded comes before the chain.
  runNow(restore(parts, undefined));
  const { layers, decompositions } = parts;
  const index = layers.findIndex((layer) => layer.site === site);
  const { a, g } = decompositions.of(index) ?? { a: [], g: [] };
  return a[0] && g[0] ? { a: a[0] as tf.Tensor2D, g: g[0] as tf.Tensor2D } : undefined;
}

/** What a run has before its link knows the weights. */
type Shared = Pick<Parts, 'settings' | 'algebra' | 'due' | 'rateOf' | 'seen' | 'seenOf'>;

/** Makes the parts for these weights. */
function runningFor(shared: Shared, params: readonly Param[]): Running {
  const { settings } = shared;
  const { layers, passed } = layersOf(params, settings);
  const factors = createFactors(settings, layers, shared.seenOf);
  const adaptive = isAdaptive(settings.damping)
    ? openAdaptiveDamping(settings.damping, { layers, factors: factors.averages, params })
    : undefined;
  const form = settings.form === 'eigen' ? eigenForm : inverseForm;
  const { correction, decay, lossReduction } = settings;
  const basis = (site: Site): Basis | undefined => basisOf(parts, site);
  const parts: Parts = {
    ...shared,
    layers,
    factors,
    counts: createCounts(),
    damping: adaptive ? adaptive.value : (settings.damping as Schedule),
    clockwork: createClockwork(),
    form,
    decompositions: createDecompositions(form, layers),
    corrections:
      correction && createCorrections({ ...correction, decay, lossReduction, basis, seen: shared.seen }, layers),
  };
  return { parts, passed, adaptive };
}

function disposeOf(running: Running | undefined): void {
  if (!running) return;
  const { parts, adaptive } = running;
  for (const part of [parts.decompositions, parts.factors, parts.corrections, adaptive]) part?.dispose();
}

function stateOf(running: Running | undefined): State {
  if (!running) return new Map();
  const { factors, counts, corrections } = running.parts;
  return new Map<string, tf.Variable | Float64Array>([
    ...factors.state(),
    ['kfac/counts', counts.kept],
    ...(running.adaptive ? [['kfac/damping', running.adaptive.kept] as const] : []),
    ...(corrections?.state() ?? []),
  ]);
}

/** Holds what is running, and the report of what has run. */
function openHolder() {
  let now: Running | undefined;
  let last = NOTHING;
  const report = (): KfacReport => (now ? reportOf(now.parts, now.passed, now.team) : last);
  const end = (): void => {
    last = report();
    disposeOf(now);
    now = undefined;
  };
  return {
    get now() {
      return now;
    },
    /** Ends what was running; the function that is returned ends this one. */
    begin(own: Running): () => void {
      end();
      now = own;
      return () => {
        if (now === own) end();
      };
    },
    report,
    end,
  };
}

/** Opens K-FAC for one run; its parts are made when its link knows the weights. */
export function openKfac(settings: Settings, { communicator, rateOf }: RunContext): OpenedKfac {
  const held = openHolder();
  let algebra: LinearAlgebra | undefined;
  const due = (clock: Clock): boolean => clock.step % Math.max(1, Math.round(settings.factorEvery(clock))) === 0;
  const seen = openSeen();
  const { observer, sums } = openObserver(settings, due, seen, (...call) =>
    held.now?.parts.corrections?.observe(...call),
  );
  const shared: Shared = { settings, due, rateOf, seen, seenOf: sums, algebra: () => algebra ?? unprepared('kfac') };
  const sampled = settings.fisher === 'sampled';
  const adapting: Probe = {
    name: 'levenbergMarquardt',
    before: (step) => held.now?.adaptive?.before(step),
    after: (step) => held.now?.adaptive?.after(step),
  };
  return {
    observer: sampled ? undefined : observer,
    probes: [...(sampled ? [sampledFisher(observer, due)] : []), ...(isAdaptive(settings.damping) ? [adapting] : [])],
    begin: (params) => held.begin(runningFor(shared, params)),
    async prepare() {
      algebra ??= await linearAlgebra();
      const running = held.now;
      if (!running || !settings.distribution || communicator.size === 1) return;
      const { layers, form } = running.parts;
      running.team = await openTeam(communicator, layers, form, settings.distribution);
    },
    advance(gradients, scope) {
      const { parts, adaptive, team } = held.now as Running;
      adaptive?.observe(gradients, scope);
      return advance(parts, gradients, scope, team);
    },
    damping: (clock) => held.now?.parts.damping(clock) ?? 0,
    state: () => stateOf(held.now),
    report: held.report,
    dispose() {
      held.end();
      seen.forget();
    },
  };
}
