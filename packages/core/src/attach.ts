import * as tf from '@tensorflow/tfjs';
import { type Communicator, oneRank } from './communicator.js';
import { FrugalError } from './errors.js';
import { chainOptimizer, type ChainOptimizer, type FitOptions } from './fit-optimizer.js';
import { registerKernels } from './kernels/register.js';
import { install, observersOf, productOf, type Runtime } from './install.js';
import { type Leaf, leaves } from './layers/keras.js';
import type { SiteProduct } from './layers/layer-kind.js';
import type { Link, Param } from './link.js';
import type { Method } from './method.js';
import { openMethods, type OpenedMethods } from './open-methods.js';
import type { Reporting, RunContext } from './opened.js';
import { mergeRules } from './rule.js';
import { clearTally, type PassMode, scopeLike, startPass, type Tally, tallyOf, total } from './running-pass.js';
import { clockAt, type Clock } from './schedule.js';
import { openScope, partOfScope, type Scope } from './scope.js';
import type { Site } from './site.js';
import { findUncovered, paramsOf, type PlacedLayer, placeSites, type Uncovered } from './sites.js';

/** What was multiplied at one site since `attach` or the last `resetReport`. */
export interface SiteReport {
  /** Name of the site. */
  readonly site: string;
  /** Name of the rule that acts there; `exact` if none does. */
  readonly rule: string;
  /** Multiply-adds done. */
  readonly done: number;
  /** Multiply-adds that exact training would have done in the same steps. */
  readonly exact: number;
  /** done / exact; 1 before the first step. */
  readonly kept: number;
}

/** How {@link Attachment.begin} opens a step. */
export interface BeginOptions {
  /** Seed of the run. Default 0. */
  readonly seed?: number;
  /** Rank of this process. Default 0. */
  readonly rank?: number;
  /** Share of the examples of the step that this rank has. Default 1. */
  readonly share?: number;
  /** Leave a final softmax out of the forward pass? Default false. */
  readonly logits?: boolean;
  /** What the loss of a pass has to be multiplied by to be its part of the step's. Default 1. */
  readonly lossScale?: number;
}

/** A model whose training step has its seams open: a run, for as long as it is attached. */
export interface Attachment {
  /** The weights whose products are replaced or observed. */
  readonly sites: readonly Site[];
  /** The trainable weights that are not, each with the reason. Never silent: a model that is mostly here trains mostly exact. */
  readonly uncovered: readonly Uncovered[];
  /** The methods that were attached. */
  readonly methods: readonly Method[];
  /** The trainable weights, as the chain sees them. */
  readonly params: readonly Param[];
  /** What a link of this run is opened with. */
  readonly context: RunContext;
  /**
   * An optimizer for `model.compile`: the links that the methods bring, then those given here. Refuses exchange links. Links
   * that load something, as K-FAC its LAPACK, need `await optimizer.prepare()` before `fit`.
   */
  optimizer(links: Link | readonly Link[], options?: FitOptions): ChainOptimizer;
  /** What was multiplied, per site. */
  report(): SiteReport[];
  /** Sets the counts of `report` to zero. */
  resetReport(): void;
  /** What a method or a link of this run tells of itself. */
  of<Report>(description: Reporting<Report>): Report;
  /** The methods as this run has opened them. */
  readonly opened: OpenedMethods;
  /** The scope of the step that is open. */
  readonly scope: Scope;
  /** For training loops of your own: opens the scope of a step. */
  begin(clock: Clock, options?: BeginOptions): Scope;
  /** Goes on to a later part of the step that is open, whose examples pass through after those before. */
  nextPart(part: number): Scope;
  /**
   * Runs `body` with passes of its own: layers draw what they draw in the step, and nothing is counted. Observers of the
   * methods look only where they belong to a rule.
   */
  look<T>(mode: Pick<PassMode, 'rules' | 'observers'>, body: () => T): T;
  /** Gives the model back as it was, and frees what the methods hold. */
  detach(): void;
}

const attached = new WeakSet<object>();

function checkModel(model: tf.LayersModel): void {
  if (!model.outputs?.length || model.layers.some((layer) => !layer.built)) {
    throw new FrugalError(
      'CONFIG',
      `Model ${model.name} is not built: its weights do not exist yet. Give the first layer an inputShape.`,
    );
  }
}

/** Refuses layers that are opened already, by this model or by another one that shares them. */
function checkFree(model: tf.LayersModel, all: readonly Leaf[]): void {
  const taken = all.find(({ layer }) => attached.has(layer));
  if (taken === undefined) return;
  throw new FrugalError(
    'CONFLICT',
    `Layer ${taken.path} of model ${model.name} is attached already. Call detach() on the first attachment, or give all methods to one attach().`,
  );
}

const reportOf = ({ site, rule, done, exact }: Tally): SiteReport => ({
  site: site.name,
  rule: rule?.name ?? 'exact',
  done: total(done),
  exact: total(exact),
  kept: total(exact) === 0 ? 1 : total(done) / total(exact),
});

/**
 * Opens the training step of a model for methods. The layers' `call` is overridden on the instances, while training only:
 * inference and evaluation stay exact, the saved JSON stays plain, any loaded model works, and `detach` removes it all.
 *
 * @throws {@link FrugalError} `CONFLICT` when two rules replace one product at one site, `CONFIG` when the model is not built
 * @example
 * ```ts
 * const attached = attach(model, topK({ keep: 0.5 }));
 * model.compile({ optimizer: attached.optimizer(sgd({ learningRate: 0.05 })), loss: 'categoricalCrossentropy' });
 * ```
 */
export function attach(model: tf.LayersModel, ...methods: readonly Method[]): Attachment {
  return attachOn(model, methods, oneRank);
}

/** As {@link attach}, for a run of several ranks. */
export function attachOn(model: tf.LayersModel, methods: readonly Method[], communicator: Communicator): Attachment {
  checkModel(model);
  const all = leaves(model);
  checkFree(model, all);
  registerKernels(tf.getBackend());
  const placed = placeSites(model, all);
  const sites = placed.flatMap((layer) => layer.sites);
  const params = paramsOf(model.trainableWeights, sites);
  const statistics = paramsOf(model.nonTrainableWeights, []);
  const opened = openMethods(methods, { model, params, statistics, sites, communicator });
  try {
    const attachment = assemble(model, all, placed, opened);
    for (const { layer } of all) attached.add(layer);
    return attachment;
  } catch (error) {
    opened.dispose();
    throw error;
  }
}

function openRuntime(): Runtime {
  const scope = openScope(clockAt(0), 0);
  const mode: PassMode = { logits: false, counts: true, rules: 'on', observers: [] };
  return { scope, mode, pass: startPass(scope, mode), open: true };
}

/** Runs `body` while another pass runs, on a scope of its own. */
function lookWith<T>(runtime: Runtime, { rules, observers }: Pick<PassMode, 'rules' | 'observers'>, body: () => T): T {
  const before = runtime.pass;
  const scope = scopeLike(runtime.scope);
  runtime.pass = startPass(scope, { ...runtime.mode, counts: false, rules, observers });
  try {
    return body();
  } finally {
    runtime.pass = before;
    scope.end();
  }
}

/** What opens steps and passes. */
function stepsOf(model: tf.LayersModel, runtime: Runtime): Pick<Attachment, 'begin' | 'nextPart' | 'look'> {
  return {
    begin(clock, { seed = 0, rank = 0, share = 1, logits = false, lossScale = 1 } = {}) {
      if (!runtime.open) throw detached(model);
      runtime.scope.end();
      runtime.scope = openScope(clock, seed, rank, share, lossScale);
      runtime.mode = { ...runtime.mode, logits };
      runtime.pass = startPass(runtime.scope, runtime.mode);
      return runtime.scope;
    },
    nextPart(part) {
      const scope = partOfScope(runtime.scope, part);
      runtime.pass = startPass(scope, runtime.mode);
      return scope;
    },
    look: (mode, body) => lookWith(runtime, mode, body),
  };
}

function assemble(
  model: tf.LayersModel,
  all: readonly Leaf[],
  placed: readonly PlacedLayer[],
  opened: OpenedMethods,
): Attachment {
  const runtime = openRuntime();
  const { context, methods } = opened;
  const { sites, params } = context;
  const rules = [...methods.values()].flatMap(({ rule }) => rule ?? []);
  const tallies = new Map(sites.map((site) => [site, tallyOf(site, mergeRules(site, rules))]));
  const watching = observersOf([...methods.values()], runtime);
  const productAt = (site: Site): SiteProduct => productOf(tallies.get(site) as Tally, watching, runtime);
  const undo = install(model, all, placed, productAt, runtime);
  const attachment: Attachment = {
    sites,
    params,
    context,
    opened,
    uncovered: findUncovered(all, sites),
    methods: [...methods.keys()],
    get scope() {
      return runtime.scope;
    },
    optimizer: (links, options) => chainOptimizer(attachment, [links].flat(), options),
    of: (description) => opened.of(description),
    ...stepsOf(model, runtime),
    report: () => [...tallies.values()].map(reportOf),
    resetReport: () => tallies.forEach(clearTally),
    detach() {
      if (!runtime.open) return;
      runtime.open = false;
      for (const restore of undo) restore();
      runtime.scope.end();
      opened.dispose();
      all.forEach(({ layer }) => attached.delete(layer));
    },
  };
  return attachment;
}

const detached = ({ name }: tf.LayersModel): FrugalError =>
  new FrugalError('CONFIG', `Model ${name} is detached: it would train without its methods. Attach it again.`);
