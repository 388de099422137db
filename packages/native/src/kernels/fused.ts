import * as tf from '@tensorflow/tfjs';
import { BINARY } from '../addon.js';
import { around, type One, type Registry, sizeOf } from './kernel.js';
import type { Activation } from './norm.js';

function registerActivations(registry: Registry): void {
  type BiasInputs = { x: tf.TensorInfo; bias: tf.TensorInfo };
  registry.custom<BiasInputs, { activation: Activation }>(
    'FrugalBiasActivation',
    (backend, { x, bias }, { activation }) => {
      if (sizeOf(bias.shape) !== x.shape.at(-1)) return undefined;
      const from = backend.floats(x);
      const y = backend.buffer(from.length);
      backend.addon.biasActivation(from, backend.floats(bias), y, activation === 'relu' ? 1 : 0);
      return backend.tensor(y, x.shape);
    },
  );
  registry.custom<{ dy: tf.TensorInfo; y: tf.TensorInfo }, object>('FrugalReluBiasGrad', (backend, { dy, y }) => {
    const channels = y.shape.at(-1) ?? 1;
    if (sizeOf(dy.shape) !== sizeOf(y.shape)) return undefined;
    const up = backend.floats(dy);
    const [dx, dbias] = [backend.buffer(up.length), backend.buffer(channels)];
    backend.addon.reluBiasGrad(up, backend.floats(y), dx, dbias);
    return [backend.tensor(dx, dy.shape), backend.tensor(dbias, [channels])];
  });
  registry.custom<{ dy: tf.TensorInfo; x: tf.TensorInfo }, object>('FrugalReluGrad', (backend, { dy, x }) => {
    if (sizeOf(dy.shape) !== sizeOf(x.shape)) return undefined;
    const up = backend.floats(dy);
    const dx = backend.buffer(up.length);
    backend.addon.binary(BINARY.reluGrad, up, backend.floats(x), dx);
    return backend.tensor(dx, dy.shape);
  });
}

function registerLoss(registry: Registry): void {
  type Inputs = { logits: tf.TensorInfo; labels: tf.TensorInfo };
  registry.custom<Inputs, object>('FrugalSoftmaxCrossEntropy', (backend, { logits, labels }) => {
    const [rows = 0, columns = 0] = logits.shape;
    if (logits.shape.length !== 2 || sizeOf(labels.shape) !== rows * columns) return undefined;
    const [loss, dlogits, correct] = [backend.buffer(1), backend.buffer(rows * columns), backend.buffer(1)];
    const [from, target] = [backend.floats(logits), backend.floats(labels)];
    backend.addon.softmaxCrossEntropy(from, target, loss, dlogits, correct, rows, columns);
    return [backend.tensor(loss, []), backend.tensor(dlogits, logits.shape), backend.tensor(correct, [])];
  });
}

function registerDropout(registry: Registry): void {
  registry.custom<One, { rate: number; seed: number }>('FrugalDropout', (backend, { x }, { rate, seed }) => {
    if (!(rate >= 0 && rate < 1)) return undefined;
    const from = backend.floats(x);
    const y = backend.buffer(from.length);
    // hash ≥ rate·2³² over integers; the scale is rounded to float32 by the addon.
    const threshold = Math.min(Math.ceil(rate * 2 ** 32), 2 ** 32 - 1);
    backend.addon.dropout(from, y, threshold, 1 / (1 - rate), seed >>> 0);
    return backend.tensor(y, x.shape);
  });
}

/** Matrices of at least so many rows have their squared norms kept up to date: fewer are as quickly computed anew. */
const NORM_ROWS = 64;

/** Frugal's fused elementwise kernels, reductions and loss. */
export function registerFused(registry: Registry): void {
  registerActivations(registry);
  registerLoss(registry);
  registerDropout(registry);
  type ExpandAttrs = { shape: number[]; axes: number[]; scale: number };
  registry.custom<One, ExpandAttrs>('FrugalExpand', (backend, { x }, { shape, axes, scale }) => {
    const [first, last] = [axes[0] ?? 0, axes.at(-1) ?? -1];
    const { outer, count, inner } = around(shape, first, last);
    const from = backend.floats(x);
    if (last - first + 1 !== axes.length || from.length !== outer * inner) return undefined;
    const y = backend.buffer(outer * count * inner);
    backend.addon.expand(from, y, outer, count, inner, scale);
    return backend.tensor(y, shape);
  });
  registry.custom<One, { axis: number }>('FrugalNorms', (backend, { x }, { axis }) => {
    const at = axis < 0 ? axis + x.shape.length : axis;
    const { outer, count, inner } = around(x.shape, at);
    const y = backend.buffer(count);
    const entry = backend.data.peek(x.dataId);
    if (entry.norms !== undefined && at === 0) {
      y.set(entry.norms);
      return backend.tensor(y, [count]);
    }
    backend.addon.norms(backend.floats(x), y, outer, count, inner);
    // Asked once for a matrix, asked again: updates of the matrix will keep them up to date.
    if (x instanceof tf.Variable && at === 0 && count >= NORM_ROWS) entry.norms = y.slice();
    return backend.tensor(y, [count]);
  });
}
