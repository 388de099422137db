import { type Method, putSlices, type Rule, squaredNorms, takeSlices } from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';

interface Plan {
  readonly sampled?: { readonly axis: number; readonly indices: Int32Array };
}

const resized = (shape: readonly number[], axis: number, n: number): number[] => [...shape].with(axis, n);

/**
 * Samples hidden layers by the norms of their weights, gradients flowing through the sample: what `topK` of the sampling
 * package does, which this package must not import. For tests only.
 */
export function largestWeights(keep: number, minK = 2): Method {
  const rule: Rule<Plan> = {
    name: 'largestWeights',
    bias: 'biased',
    accepts: (site) => site.role === 'hidden',
    plan({ site }, _x, w) {
      const axis = site.geometry.contractions.forward.right;
      const norms = [...squaredNorms(w, axis).dataSync()];
      const k = Math.max(Math.floor(norms.length * keep), minK);
      if (k >= norms.length) return {};
      const order = norms.map((_, i) => i).sort((i, j) => norms[j]! - norms[i]! || i - j);
      return { sampled: { axis, indices: Int32Array.from(order.slice(0, k)).sort() } };
    },
    operands({ site, plan }, x, w) {
      const { left, right } = site.geometry.contractions.forward;
      const indices = plan?.sampled?.indices;
      return indices ? [takeSlices(x, left, { indices }), takeSlices(w, right, { indices })] : [x, w];
    },
    inputGrad({ site, plan, exact }, dy, w, xShape) {
      const { left, right } = site.geometry.contractions.forward;
      const indices = plan?.sampled?.indices;
      if (!indices) return exact.inputGrad(dy, w, xShape);
      const dx = exact.inputGrad(dy, takeSlices(w, right, { indices }), resized(xShape, left, indices.length));
      return putSlices(dx, left, xShape[left]!, { indices });
    },
    weightGrad({ site, plan, exact }, x, dy, wShape): tf.Tensor {
      const { left, right } = site.geometry.contractions.forward;
      const indices = plan?.sampled?.indices;
      if (!indices) return exact.weightGrad(x, dy, wShape);
      const dw = exact.weightGrad(takeSlices(x, left, { indices }), dy, resized(wShape, right, indices.length));
      return putSlices(dw, right, wShape[right]!, { indices });
    },
  };
  return { name: 'largestWeights', source: 'test', open: () => ({ rule: rule as Rule }) };
}
