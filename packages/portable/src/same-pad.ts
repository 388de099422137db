import * as tf from '@tensorflow/tfjs';
import { stockKernel } from './copy.js';
import type { Kernel, Kernels } from './kernel.js';
import { need } from './kernel.js';

type Shape4 = [number, number, number, number];

interface ConvAttrs {
  readonly strides: number | [number, number];
  readonly pad: 'same' | 'valid' | number | tf.backend_util.ExplicitPadding;
  readonly dilations: number | [number, number];
  readonly dataFormat?: 'NHWC' | 'NCHW';
}

/**
 * Upstream leaves 'same' to XNNPACK, which reads from a wrong first pixel where the filter is smaller than the stride, so
 * that no padding is needed along that axis (conv2d_impl.cc 4.22, FLAG_TENSORFLOW_SAME_PADDING): wrong values without an
 * error, in one geometry of six. The padding that tfjs-core computes is right, and is what these kernels get instead.
 */
const explicitPad =
  (stock: Kernel): Kernel =>
  (inputs, attrs, backend) => {
    const { strides, pad, dilations, dataFormat } = attrs as ConvAttrs;
    if (pad !== 'same' || dataFormat === 'NCHW') return stock(inputs, attrs, backend);
    const [x, w] = [need(inputs, 'x').shape as Shape4, need(inputs, 'filter').shape as Shape4];
    const { padInfo } = tf.backend_util.computeConv2DInfo(x, w, strides, dilations, pad);
    const explicit = [
      [0, 0],
      [padInfo.top, padInfo.bottom],
      [padInfo.left, padInfo.right],
      [0, 0],
    ];
    return stock(inputs, { ...(attrs as ConvAttrs), pad: explicit, dimRoundingMode: 'floor' }, backend);
  };

/** The forward convolutions of upstream, with padding of our own. */
export function samePadKernels(): Kernels {
  const names = ['Conv2D', 'FusedConv2D', 'DepthwiseConv2dNative', 'FusedDepthwiseConv2D'];
  return Object.fromEntries(names.map((name) => [name, explicitPad(stockKernel(name))]));
}
