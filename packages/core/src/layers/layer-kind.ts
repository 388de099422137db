import * as tf from '@tensorflow/tfjs';
import type { Geometry } from '../geometry.js';
import type { FusedActivation } from '../kernels/bias-activation.js';
import { type CallableLayer, type LayerWeight, type LinearLayer, overrideTraining } from './keras.js';

/** A weight of a layer whose products can be replaced. */
export interface LayerSite {
  /** How it multiplies. */
  readonly geometry: Geometry;
  /** The weight. */
  readonly kernel: LayerWeight;
  /** What is added to the product. */
  readonly bias?: LayerWeight | undefined;
}

/** The product of a site, with bias and activation. */
export type SiteProduct = (x: tf.Tensor, activation: FusedActivation) => tf.Tensor;

/** A kind of layer: what its sites are, and how it runs on their products. Stands in the file of its geometry. */
export interface LayerKind {
  /** Its class in TensorFlow.js. */
  readonly className: string;
  /** One site for each weight, or the reason why there is none. */
  sitesOf(layer: LinearLayer): readonly LayerSite[] | string;
  /**
   * Sends a layer through the products of its sites while training; the returned function undoes it. With `logits()` true a
   * softmax is left out.
   */
  install(layer: LinearLayer, products: readonly SiteProduct[], logits: () => boolean): () => void;
}

/** Does a layer apply softmax to its result? */
export function hasSoftmax(layer: CallableLayer): boolean {
  const { activation } = layer as LinearLayer;
  return layer.getClassName() === 'Softmax' || activation?.getClassName() === 'softmax';
}

/** Installs a layer of one product, which adds the bias and applies relu; any other activation is the layer's own. */
export function installLinear(
  layer: LinearLayer,
  [product]: readonly SiteProduct[],
  logits: () => boolean,
): () => void {
  return overrideTraining(layer, (x) =>
    tf.tidy(() => {
      const name = layer.activation?.getClassName() ?? 'linear';
      if (name === 'relu') return product?.(x, 'relu');
      const y = product?.(x, 'linear');
      if (y === undefined || name === 'linear' || (name === 'softmax' && logits())) return y;
      return layer.activation?.apply(y) ?? y;
    }),
  );
}
