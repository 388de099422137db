import type * as tf from '@tensorflow/tfjs';
import { counted } from './geometry.js';
import { findFusions, installFusion } from './layers/fuse.js';
import { finalLayer, type Leaf } from './layers/keras.js';
import { hasSoftmax, type SiteProduct } from './layers/layer-kind.js';
import { installLogits, installTrainingLayer } from './layers/training-layers.js';
import { linear } from './linear.js';
import type { OpenedMethod } from './method.js';
import type { Observer } from './rule.js';
import { countInto, nowhere, type PassMode, type RunningPass, type Tally } from './running-pass.js';
import type { Scope } from './scope.js';
import type { Site } from './site.js';
import type { PlacedLayer } from './sites.js';

/** What the layers of an attached model ask while they run. */
export interface Runtime {
  scope: Scope;
  pass: RunningPass;
  mode: PassMode;
  open: boolean;
}

/** The product of a site in whatever pass runs: counts what is done and what exact training would do. */
export function productOf(tally: Tally, observers: readonly Observer[], runtime: Runtime): SiteProduct {
  const { site, rule, done, exact } = tally;
  const products = counted(site.geometry, done);
  const count = countInto(done);
  return (x, activation) => {
    const { pass } = runtime;
    const call = { site, scope: pass.scope, key: pass.keyOf(site) };
    const bridge = { rule: pass.ruleOf(rule), observers: [...observers, ...pass.observers], activation };
    return linear(x, site.kernel, site.bias, {
      ...bridge,
      ...(pass.counts
        ? { call: { ...call, exact: products, count }, exact }
        : { call: { ...call, exact: site.geometry.products }, exact: nowhere() }),
    });
  };
}

/** Overrides the layers; returns what undoes it. */
export function install(
  model: tf.LayersModel,
  all: readonly Leaf[],
  placed: readonly PlacedLayer[],
  productAt: (site: Site) => SiteProduct,
  runtime: Runtime,
): (() => void)[] {
  const head = finalLayer(model);
  const fusions = findFusions(
    model,
    all.map(({ layer }) => layer),
  );
  const fused = new Set(fusions.flatMap(({ norm, add, relu }) => [norm, add, relu]));
  const others = all.flatMap(({ layer }, index) => {
    if (fused.has(layer)) return [];
    // The only layer whose softmax is ever left out.
    const logits = (): boolean => runtime.pass.logits && layer === head;
    const own = placed.find((at) => at.layer === layer);
    if (own) return [own.kind.install(own.layer, own.sites.map(productAt), logits)];
    const seed = (): number => runtime.pass.scope.random('layer', index, runtime.pass.nextDraw()).seed();
    const installed = installTrainingLayer(layer, seed);
    if (installed) return [installed];
    return layer === head && hasSoftmax(layer) ? [installLogits(layer, logits)] : [];
  });
  return [...fusions.map(installFusion), ...others];
}

/**
 * The observers of methods. In a pass that only looks, those see what happens whose method has a rule: it may need what they
 * see.
 */
export function observersOf(methods: readonly OpenedMethod[], runtime: Runtime): Observer[] {
  return methods.flatMap(({ rule, observer }) => {
    if (!observer) return [];
    const looks = (): boolean => runtime.pass.counts || (rule !== undefined && runtime.pass.ruleOf(rule) !== undefined);
    return [
      {
        name: observer.name,
        onBackward: (call, x, dy) => {
          if (looks()) observer.onBackward(call, x, dy);
        },
      } satisfies Observer,
    ];
  });
}
