import * as tf from '@tensorflow/tfjs';
import type { FusedActivation } from './kernels/bias-activation.js';
import type { Geometry, Product } from './site.js';

/** What follows a product in its layer and is computed in the same pass. */
export interface Epilogue {
  /** Added over the last axis. */
  readonly bias?: tf.Tensor;
  /** Applied last. */
  readonly activation: FusedActivation;
}

/** The exact products of a geometry, on whole tensors or on slices of them. */
export interface ExactProducts {
  /** Y = X·W, or activation(X·W + bias). */
  forward(x: tf.Tensor, w: tf.Tensor, epilogue?: Epilogue): tf.Tensor;
  /** dX = dY·Wᵀ, of shape `xShape`. */
  inputGrad(dy: tf.Tensor, w: tf.Tensor, xShape: readonly number[]): tf.Tensor;
  /** dW = Xᵀ·dY, of shape `wShape`. */
  weightGrad(x: tf.Tensor, dy: tf.Tensor, wShape: readonly number[]): tf.Tensor;
}

/** Multiply-adds of each product. */
export type Counts = Record<Product, number>;

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

const run = (kernel: string, inputs: Record<string, tf.Tensor>, attrs: object): tf.Tensor =>
  tf.engine().runKernel(kernel, inputs as unknown as tf.NamedTensorMap, attrs as tf.NamedAttrMap) as tf.Tensor;

const dense: ExactProducts = {
  forward: (x, w, epilogue) => {
    const attrs = { transposeA: false, transposeB: false };
    if (!epilogue) return run('BatchMatMul', { a: x, b: w }, attrs);
    const { bias, activation } = epilogue;
    return run('_FusedMatMul', { a: x, b: w, ...(bias && { bias }) }, { ...attrs, activation });
  },
  inputGrad: (dy, w) => run('BatchMatMul', { a: dy, b: w }, { transposeA: false, transposeB: true }),
  weightGrad: (x, dy) => run('BatchMatMul', { a: x, b: dy }, { transposeA: true, transposeB: false }),
};

const conv2d = (strides: readonly [number, number], pad: 'same' | 'valid'): ExactProducts => {
  const attrs = { strides: [...strides], pad, dataFormat: 'NHWC', dilations: [1, 1] };
  return {
    forward: (x, filter, epilogue) => {
      if (!epilogue) return run('Conv2D', { x, filter }, attrs);
      const { bias, activation } = epilogue;
      return run('FusedConv2D', { x, filter, ...(bias && { bias }) }, { ...attrs, activation });
    },
    inputGrad: (dy, filter, xShape) =>
      run('Conv2DBackpropInput', { dy, filter }, { ...attrs, inputShape: [...xShape] }),
    weightGrad: (x, dy, wShape) => run('Conv2DBackpropFilter', { x, dy }, { ...attrs, filterShape: [...wShape] }),
  };
};

/** The exact products of `geometry`. */
export function exactProducts(geometry: Geometry): ExactProducts {
  return geometry.kind === 'dense' ? dense : conv2d(geometry.strides, geometry.pad);
}

/**
 * Multiply-adds of one product, from the shapes of the output y (or dy) and of the weight. Dense: N·K·M.
 * Convolution: N·outH·outW·kH·kW·C·O, padding counted, as is usual.
 */
export function multiplyAdds(yShape: readonly number[], wShape: readonly number[]): number {
  return (size(yShape) / (wShape.at(-1) as number)) * size(wShape);
}

/** `exact`, but every call adds its multiply-adds to `done`: what a rule reports is what it ran. */
export function counted(exact: ExactProducts, done: Counts): ExactProducts {
  return {
    forward(x, w, epilogue) {
      const y = exact.forward(x, w, epilogue);
      done.forward += multiplyAdds(y.shape, w.shape);
      return y;
    },
    inputGrad(dy, w, xShape) {
      done.inputGrad += multiplyAdds(dy.shape, w.shape);
      return exact.inputGrad(dy, w, xShape);
    },
    weightGrad(x, dy, wShape) {
      done.weightGrad += multiplyAdds(dy.shape, wShape);
      return exact.weightGrad(x, dy, wShape);
    },
  };
}
