import * as tf from '@tensorflow/tfjs';
import { type ExactProducts, type Geometry, multiplyAdds } from '../geometry.js';
import { gram } from '../kernels/gram.js';
import { runOne } from '../kernels/run.js';
import { installLinear, type LayerKind } from '../layers/layer-kind.js';

/** How the filters of a convolution move. */
export interface Conv2dOptions {
  /** Step in height and in width. */
  readonly strides: readonly [height: number, width: number];
  /** `'same'` pads with zeros; `'valid'` does not. */
  readonly pad: 'same' | 'valid';
}

function products({ strides, pad }: Conv2dOptions): ExactProducts {
  const attrs = { strides: [...strides], pad, dataFormat: 'NHWC', dilations: [1, 1] };
  return {
    forward(x, filter, epilogue) {
      if (!epilogue) return runOne('Conv2D', { x, filter }, attrs);
      const { bias, activation } = epilogue;
      return runOne('FusedConv2D', { x, filter, ...(bias && { bias }) }, { ...attrs, activation });
    },
    inputGrad: (dy, filter, xShape) =>
      runOne('Conv2DBackpropInput', { dy, filter }, { ...attrs, inputShape: [...xShape] }),
    weightGrad: (x, dy, wShape) => runOne('Conv2DBackpropFilter', { x, dy }, { ...attrs, filterShape: [...wShape] }),
  };
}

/** A convolution of images: x [N, H, W, C], w [kH, kW, C, O], y [N, outH, outW, O]. */
export function conv2d(options: Conv2dOptions): Geometry {
  const exact = products(options);
  return {
    name: 'conv2d',
    contractions: {
      forward: { left: 3, right: 2 },
      inputGrad: { left: 3, right: 3 },
      weightGrad: { left: 0, right: 0 },
    },
    slides: true,
    products: exact,
    multiplyAdds,
    operandOf: (x) => ({ x, restore: (y) => y }),
    gramOfInputs: (x, [height = 1, width = 1], ones) =>
      gram(x, { ones, window: { ...options, size: [height, width] } }),
    exampleGradients({ x, dy, wShape, count, bias }) {
      const outputs = wShape.at(-1) as number;
      const matrices = Array.from({ length: count }, (_, i) => {
        const [one, back] = [tf.slice(x, i, 1), tf.slice(dy, i, 1)];
        const matrix = tf.reshape(exact.weightGrad(one, back, wShape), [-1, outputs]);
        return bias ? tf.concat([matrix, tf.reshape(tf.sum(back, [0, 1, 2]), [1, outputs])], 0) : matrix;
      });
      return tf.stack(matrices) as tf.Tensor3D;
    },
  };
}

const pair = (value: number | readonly number[] | undefined): [number, number] => {
  if (value === undefined) return [1, 1];
  return typeof value === 'number' ? [value, value] : [value[0] ?? 1, value[1] ?? value[0] ?? 1];
};

/** Conv2D layers, channels last and without dilation. */
export const conv2dLayer: LayerKind = {
  className: 'Conv2D',
  sitesOf({ kernel, bias, dataFormat, dilationRate, strides, padding }) {
    if (dataFormat === 'channelsFirst') return 'channels come first';
    if (pair(dilationRate).some((d) => d !== 1)) return 'TensorFlow.js has no gradient for dilated convolutions';
    if (padding !== 'same' && padding !== 'valid') return `padding is ${String(padding)}`;
    if (!kernel) return 'it is not built';
    return [{ geometry: conv2d({ strides: pair(strides), pad: padding }), kernel, bias: bias ?? undefined }];
  },
  install: installLinear,
};
