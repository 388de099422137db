import type { CallableLayer, LinearLayer } from '../layers/keras.js';
import type { LayerKind, LayerSite } from '../layers/layer-kind.js';
import { conv2dLayer } from './conv2d.js';
import { denseLayer } from './dense.js';

/** The kinds of layers whose products can be replaced. */
const KINDS: readonly LayerKind[] = [denseLayer, conv2dLayer];

/** The kind of a layer; undefined where its products cannot be replaced. */
export function kindOf(layer: CallableLayer): LayerKind | undefined {
  return KINDS.find(({ className }) => className === layer.getClassName());
}

/** One site for each weight of a layer whose products can be replaced, or the reason why there is none. */
export function sitesOf(layer: CallableLayer): readonly LayerSite[] | string {
  const kind = kindOf(layer);
  return kind ? kind.sitesOf(layer as LinearLayer) : `${layer.getClassName()} layers have no replaceable products`;
}
