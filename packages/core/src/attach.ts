import * as tf from '@tensorflow/tfjs';
import { linksOf } from './chain.js';
import { FrugalError } from './errors.js';
import { chainOptimizer, type FitOptions } from './fit-optimizer.js';
import type { FusedActivation } from './kernels/bias-activation.js';
import { registerKernels } from './kernels/register.js';
import {
  type CallableLayer,
  leaves,
  finalLayer,
  outputLayers,
  variableOf,
  type Leaf,
  type LinearLayer,
} from './layers/keras.js';
import { below } from './layers/below.js';
import { findFusions, installFusion } from './layers/fuse.js';
import { coverage, hasSoftmax, installLinear } from './layers/linear-layer.js';
import { installLogits, installTrainingLayer } from './layers/training-layers.js';
import { linear } from './linear.js';
import type { Method } from './method.js';
import { type Counts, counted, exactProducts } from './products.js';
import { mergeRules, type Rule } from './rule.js';
import { clockAt, type Clock } from './schedule.js';
import { openScope, type Scope } from './scope.js';
import type { Product, Site } from './site.js';
import type { Param, Transform } from './transform.js';

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

/** A trainable weight that no site covers, and why. */
export interface Uncovered {
  /** Name of the weight. */
  readonly weight: string;
  /** Why its products cannot be replaced. */
  readonly reason: string;
}

/** A model whose training step has its seams open. */
export interface Attachment {
  /** The weights whose products are replaced or observed. */
  readonly sites: readonly Site[];
  /** The trainable weights that are not, each with the reason. Never silent: a model that is mostly here trains mostly exact. */
  readonly uncovered: readonly Uncovered[];
  /** The methods that were attached. */
  readonly methods: readonly Method[];
  /** The trainable weights, as the chain sees them. */
  readonly params: readonly Param[];
  /** An optimizer for `model.compile`: the links that the methods bring, then those given here. Refuses exchange links. */
  optimizer(links: Transform | readonly Transform[], options?: FitOptions): tf.Optimizer;
  /** What was multiplied, per site. */
  report(): SiteReport[];
  /** Sets the counts of `report` to zero. */
  resetReport(): void;
  /** The scope of the step that is open. */
  readonly scope: Scope;
  /** For training loops of your own: opens the scope of a step. `logits` leaves a final softmax out of the forward pass. */
  begin(clock: Clock, options?: { seed?: number; rank?: number; share?: number; logits?: boolean }): Scope;
  /** Layers that draw, as dropout, draw again what they drew since `begin`: for a second pass over the batch of a step. */
  rewind(): void;
  /** Gives the model back as it was. */
  detach(): void;
}

interface Tally {
  readonly site: Site;
  readonly rule: Rule | undefined;
  readonly done: Counts;
  readonly exact: Counts;
}

interface Runtime {
  scope: Scope;
  logits: boolean;
  calls: number;
  open: boolean;
  /** The layer that makes the model's output: the only one whose softmax is ever left out. */
  readonly head: CallableLayer;
}

const zero = (): Counts => ({ forward: 0, inputGrad: 0, weightGrad: 0 });
const total = (counts: Counts): number => counts.forward + counts.inputGrad + counts.weightGrad;
const attached = new WeakSet<object>();

function siteOf(
  leaf: Leaf,
  role: Site['role'],
  index: number,
  found: ReadonlyMap<CallableLayer, string>,
): Site | undefined {
  const layer = leaf.layer as LinearLayer;
  const covered = coverage(layer);
  if ('reason' in covered || layer.kernel === undefined) return undefined;
  const bias = layer.bias ? { bias: variableOf(layer.bias) } : {};
  const from = below(layer, found);
  const kernel = variableOf(layer.kernel);
  const site = { index, name: leaf.path, geometry: covered.geometry, kernel, ...bias, role };
  return from ? { ...site, below: from } : site;
}

/** Installs the product kernel at a layer: counts what is done and what exact training would do. */
function installSite(leaf: Leaf, tally: Tally, methods: readonly Method[], runtime: Runtime): () => void {
  const { site, rule, done, exact } = tally;
  const observers = methods.flatMap((method) => method.observer ?? []);
  const products = counted(exactProducts(site.geometry), done);
  const count = (product: Product, multiplyAdds: number): void => void (done[product] += multiplyAdds);
  const product = (x: tf.Tensor, activation: FusedActivation): tf.Tensor => {
    const call = { site, exact: products, count, scope: runtime.scope };
    return linear(x, site.kernel, site.bias, { call, rule, observers, exact, activation });
  };
  return installLinear(leaf.layer as LinearLayer, product, () => runtime.logits && leaf.layer === runtime.head);
}

function findUncovered(all: readonly Leaf[], sites: readonly Site[]): Uncovered[] {
  const covered = new Set(sites.flatMap((site) => [site.kernel.name, ...(site.bias ? [site.bias.name] : [])]));
  return all.flatMap(({ layer }) => {
    const state = coverage(layer);
    const reason = 'reason' in state ? state.reason : 'the layer is not built';
    return layer.trainableWeights
      .filter((weight) => !covered.has(variableOf(weight).name))
      .map((weight) => ({ weight: weight.name, reason }));
  });
}

function paramsOf(model: tf.LayersModel, sites: readonly Site[]): Param[] {
  const owner = new Map<string, Site>();
  for (const site of sites) for (const v of [site.kernel, site.bias]) if (v) owner.set(v.name, site);
  const seen = new Map<string, number>();
  return model.trainableWeights.map((weight) => {
    const value = weight.read() as tf.Variable;
    const site = owner.get(value.name);
    const uses = (seen.get(weight.originalName) ?? 0) + 1;
    seen.set(weight.originalName, uses);
    const name = uses === 1 ? weight.originalName : `${weight.originalName}#${uses}`;
    return { name, value, ...(site && { site }) };
  });
}

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

/** Every site of a model, with the rule that acts there. */
function makeTallies(model: tf.LayersModel, all: readonly Leaf[], methods: readonly Method[]): Tally[] {
  const outputs = outputLayers(model, (layer) => 'geometry' in coverage(layer));
  const rules = methods.flatMap((method) => method.rule ?? []);
  const tallies: Tally[] = [];
  const found = new Map(
    all.flatMap(({ layer, path }) => ('geometry' in coverage(layer) ? [[layer, path] as const] : [])),
  );
  for (const leaf of all) {
    const site = siteOf(leaf, outputs.includes(leaf.layer) ? 'output' : 'hidden', tallies.length, found);
    if (site) tallies.push({ site, rule: mergeRules(site, rules), done: zero(), exact: zero() });
  }
  return tallies;
}

/** Overrides the layers; returns what undoes it. */
function install(
  model: tf.LayersModel,
  all: readonly Leaf[],
  tallies: readonly Tally[],
  methods: readonly Method[],
  runtime: Runtime,
): (() => void)[] {
  const layers = all.map(({ layer }) => layer);
  const fusions = findFusions(model, layers);
  const fused = new Set(fusions.flatMap(({ norm, add, relu }) => [norm, add, relu]));
  const single = all.flatMap((leaf, index) => {
    if (fused.has(leaf.layer)) return [];
    const tally = tallies.find(({ site }) => site.name === leaf.path);
    return tally ? [installSite(leaf, tally, methods, runtime)] : installOther(leaf, index, runtime);
  });
  return [...fusions.map(installFusion), ...single];
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
  checkModel(model);
  const all = leaves(model);
  checkFree(model, all);
  const attachment = open(model, all, methods, () => all.forEach(({ layer }) => attached.delete(layer)));
  for (const { layer } of all) attached.add(layer);
  return attachment;
}

/**
 * As {@link attach}, also on a model that is attached already: for measurements in the middle of a run. Until `detach`,
 * which must come before the next step of the run, the model trains with these methods only, on scopes of their own, and
 * the run's report counts nothing.
 *
 * @throws {@link FrugalError} as `attach`, but for models that are attached
 */
export function attachWithin(model: tf.LayersModel, ...methods: readonly Method[]): Attachment {
  checkModel(model);
  return open(model, leaves(model), methods, () => undefined);
}

function open(model: tf.LayersModel, all: readonly Leaf[], methods: readonly Method[], ended: () => void): Attachment {
  registerKernels(tf.getBackend());
  const head = finalLayer(model);
  const runtime: Runtime = { scope: openScope(clockAt(0), 0), logits: false, calls: 0, open: true, head };
  const tallies = makeTallies(model, all, methods);
  const undo = install(model, all, tallies, methods, runtime);
  const detach = (): void => {
    if (!runtime.open) return;
    runtime.open = false;
    for (const restore of undo) restore();
    runtime.scope.end();
    ended();
  };
  return assemble(
    model,
    methods,
    tallies,
    findUncovered(
      all,
      tallies.map((t) => t.site),
    ),
    runtime,
    detach,
  );
}

function installOther(leaf: Leaf, index: number, runtime: Runtime): (() => void)[] {
  const seed = (): number => runtime.scope.random('layer', index, runtime.calls++).seed();
  const installed = installTrainingLayer(leaf.layer, seed);
  if (installed) return [installed];
  const softmaxHead = leaf.layer === runtime.head && hasSoftmax(leaf.layer);
  return softmaxHead ? [installLogits(leaf.layer, () => runtime.logits)] : [];
}

function assemble(
  model: tf.LayersModel,
  methods: readonly Method[],
  tallies: readonly Tally[],
  uncovered: readonly Uncovered[],
  runtime: Runtime,
  detach: () => void,
): Attachment {
  const sites = tallies.map(({ site }) => site);
  const params = paramsOf(model, sites);
  const attachment: Attachment = {
    sites,
    uncovered,
    methods,
    params,
    detach,
    get scope() {
      return runtime.scope;
    },
    optimizer: (given, options) => chainOptimizer(attachment, linksOf(methods, given), options),
    begin(clock, { seed = 0, rank = 0, share = 1, logits = false } = {}) {
      if (!runtime.open) {
        throw new FrugalError(
          'CONFIG',
          `Model ${model.name} is detached: it would train without its methods. Attach it again.`,
        );
      }
      runtime.scope.end();
      runtime.scope = openScope(clock, seed, rank, share);
      runtime.logits = logits;
      runtime.calls = 0;
      return runtime.scope;
    },
    rewind: () => void (runtime.calls = 0),
    report: () => tallies.map(reportOf),
    resetReport() {
      for (const { done, exact } of tallies) {
        Object.assign(done, zero());
        Object.assign(exact, zero());
      }
    },
  };
  return attachment;
}
