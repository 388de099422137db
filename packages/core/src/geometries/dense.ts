import * as tf from '@tensorflow/tfjs';
import { type Geometry, multiplyAdds } from '../geometry.js';
import { gram } from '../kernels/gram.js';
import { runOne } from '../kernels/run.js';
import { installLinear, type LayerKind } from '../layers/layer-kind.js';

/** A dense layer: x [N, K], w [K, M], y [N, M]. An x of higher rank is flattened to [rows, K]. */
export const dense: Geometry = {
  name: 'dense',
  contractions: { forward: { left: 1, right: 0 }, inputGrad: { left: 1, right: 1 }, weightGrad: { left: 0, right: 0 } },
  slides: false,
  products: {
    forward(x, w, epilogue) {
      const attrs = { transposeA: false, transposeB: false };
      if (!epilogue) return runOne('BatchMatMul', { a: x, b: w }, attrs);
      const { bias, activation } = epilogue;
      return runOne('_FusedMatMul', { a: x, b: w, ...(bias && { bias }) }, { ...attrs, activation });
    },
    inputGrad: (dy, w) => runOne('BatchMatMul', { a: dy, b: w }, { transposeA: false, transposeB: true }),
    weightGrad: (x, dy) => runOne('BatchMatMul', { a: x, b: dy }, { transposeA: true, transposeB: false }),
  },
  multiplyAdds,
  operandOf(x) {
    if (x.rank === 2) return { x, restore: (y) => y };
    const features = x.shape.at(-1) as number;
    return {
      x: tf.reshape(x, [-1, features]),
      rowsPerExample: x.size / features / (x.shape[0] as number),
      restore: (y) => tf.reshape(y, [...x.shape.slice(0, -1), y.shape[1] as number]),
    };
  },
  gramOfInputs: (x, _wShape, ones) => gram(x, { ones }),
  exampleGradients({ x, dy, rowsPerExample, count, bias }) {
    const rows = (of: tf.Tensor): tf.Tensor3D =>
      tf.reshape(tf.slice(of, 0, count * rowsPerExample), [count, rowsPerExample, of.shape.at(-1) as number]);
    const inputs = rows(x);
    const all = bias ? tf.concat([inputs, tf.ones([count, rowsPerExample, 1])], 2) : inputs;
    return tf.matMul(all, rows(dy), true) as tf.Tensor3D;
  },
};

/** Dense layers. */
export const denseLayer: LayerKind = {
  className: 'Dense',
  sitesOf: ({ kernel, bias }) => (kernel ? [{ geometry: dense, kernel, bias: bias ?? undefined }] : 'it is not built'),
  install: installLinear,
};
