import * as tf from '@tensorflow/tfjs';
import type { FusedActivation } from '../kernels/bias-activation.js';
import type { Geometry } from '../site.js';
import { type CallableLayer, type LinearLayer, overrideTraining } from './keras.js';

/** Why a layer with a kernel is not a site, or its geometry. */
export type Coverage = { readonly geometry: Geometry } | { readonly reason: string };

const pair = (value: number | readonly number[] | undefined): [number, number] => {
  if (value === undefined) return [1, 1];
  return typeof value === 'number' ? [value, value] : [value[0] ?? 1, value[1] ?? value[0] ?? 1];
};

/** Says how a layer multiplies, or why its products cannot be replaced. */
export function coverage(layer: CallableLayer): Coverage {
  const kind = layer.getClassName();
  if (kind === 'Dense') return { geometry: { kind: 'dense' } };
  if (kind !== 'Conv2D') return { reason: `${kind} layers have no replaceable products` };
  const { dataFormat, dilationRate, strides, padding } = layer as LinearLayer;
  if (dataFormat === 'channelsFirst') return { reason: 'channels come first' };
  if (pair(dilationRate).some((d) => d !== 1))
    return { reason: 'TensorFlow.js has no gradient for dilated convolutions' };
  if (padding !== 'same' && padding !== 'valid') return { reason: `padding is ${String(padding)}` };
  return { geometry: { kind: 'conv2d', strides: pair(strides), pad: padding } };
}

/** Does a layer apply softmax to its result? */
export function hasSoftmax(layer: CallableLayer): boolean {
  const { activation } = layer as LinearLayer;
  return layer.getClassName() === 'Softmax' || activation?.getClassName() === 'softmax';
}

/**
 * Sends a layer through `product` while training, which adds the bias and applies relu; any other activation is the layer's
 * own. With `logits()` true a softmax is left out.
 */
export function installLinear(
  layer: LinearLayer,
  product: (x: tf.Tensor, activation: FusedActivation) => tf.Tensor,
  logits: () => boolean,
): () => void {
  return overrideTraining(layer, (x) =>
    tf.tidy(() => {
      const name = layer.activation?.getClassName() ?? 'linear';
      if (name === 'relu') return product(x, 'relu');
      const y = product(x, 'linear');
      if (name === 'linear' || (name === 'softmax' && logits())) return y;
      return layer.activation?.apply(y) ?? y;
    }),
  );
}
