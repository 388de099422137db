import type * as tf from '@tensorflow/tfjs';
import { kindOf, sitesOf } from './geometries/index.js';
import { below } from './layers/below.js';
import { type CallableLayer, type Leaf, type LinearLayer, outputLayers, variableOf } from './layers/keras.js';
import type { LayerKind, LayerSite } from './layers/layer-kind.js';
import type { Param } from './link.js';
import type { Below, Site } from './site.js';

/** A trainable weight that no site covers, and why. */
export interface Uncovered {
  /** Name of the weight. */
  readonly weight: string;
  /** Why its products cannot be replaced. */
  readonly reason: string;
}

/** A layer whose products can be replaced, with its sites. */
export interface PlacedLayer {
  readonly layer: LinearLayer;
  readonly kind: LayerKind;
  readonly sites: readonly Site[];
}

type Making = { -readonly [K in keyof Site]: Site[K] };

/** Gives each name once: later ones end in `#2`, `#3`, …. */
function uniqueNames(): (name: string) => string {
  const seen = new Map<string, number>();
  return (name) => {
    const uses = (seen.get(name) ?? 0) + 1;
    seen.set(name, uses);
    return uses === 1 ? name : `${name}#${uses}`;
  };
}

/** Every layer of a model whose products can be replaced, in order. */
export function placeSites(model: tf.LayersModel, all: readonly Leaf[]): PlacedLayer[] {
  const nameOf = uniqueNames();
  const found = new Map<CallableLayer, readonly LayerSite[]>();
  for (const { layer } of all) {
    const sites = sitesOf(layer);
    if (typeof sites !== 'string') found.set(layer, sites);
  }
  const outputs = outputLayers(model, (layer) => found.has(layer));
  const made = new Map<CallableLayer, Making[]>();
  let index = 0;
  for (const { layer, path } of all) {
    const role = outputs.includes(layer) ? 'output' : 'hidden';
    const make = ({ geometry, kernel, bias }: LayerSite): Making => {
      const variables = { kernel: variableOf(kernel), ...(bias && { bias: variableOf(bias) }) };
      return { index: index++, name: nameOf(path), geometry, ...variables, role };
    };
    const sites = found.get(layer);
    if (sites) made.set(layer, sites.map(make));
  }
  for (const [layer, sites] of made) {
    const from = below(layer, new Set(made.keys()));
    const last = from && made.get(from.layer)?.at(-1);
    if (last) for (const site of sites) site.below = { site: last, through: from.through } satisfies Below;
  }
  return [...made].map(([layer, sites]) => ({ layer: layer as LinearLayer, kind: kindOf(layer) as LayerKind, sites }));
}

/** The trainable weights that no site covers. */
export function findUncovered(all: readonly Leaf[], sites: readonly Site[]): Uncovered[] {
  const covered = new Set<tf.Tensor>(sites.flatMap(({ kernel, bias }) => (bias ? [kernel, bias] : [kernel])));
  return all.flatMap(({ layer }) => {
    const state = sitesOf(layer);
    const reason = typeof state === 'string' ? state : 'no product of the layer has it';
    return layer.trainableWeights
      .filter((weight) => !covered.has(variableOf(weight)))
      .map((weight) => ({ weight: weight.name, reason }));
  });
}

/** Weights of a model as the chain sees them. */
export function paramsOf(weights: readonly tf.layers.Layer['weights'][number][], sites: readonly Site[]): Param[] {
  const owner = new Map<tf.Tensor, Site>();
  for (const site of sites) for (const v of [site.kernel, site.bias]) if (v) owner.set(v, site);
  const nameOf = uniqueNames();
  return weights.map((weight) => {
    const value = weight.read() as tf.Variable;
    const site = owner.get(value);
    return { name: nameOf(weight.originalName), value, ...(site && { site }) };
  });
}
