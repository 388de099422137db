import type * as tf from '@tensorflow/tfjs';
import { REDUCTION } from '../addon.js';
import type { NativeBackend } from '../backend.js';
import { adjacentRuns, around, isFloat, type One, type Registry, sizeOf, sortedAxes } from './kernel.js';

/** Reduces axis runs from the last to the first; all but one are rare. */
function reduceRuns(
  backend: NativeBackend,
  op: number,
  x: tf.TensorInfo,
  axes: readonly number[],
  scale: number,
): Float32Array {
  const from = backend.floats(x);
  const shape = [...x.shape];
  let values = from;
  const runs = adjacentRuns(axes);
  for (let i = runs.length - 1; i >= 0; i--) {
    const [first, last] = runs[i] as [number, number];
    const { outer, count, inner } = around(shape, first, last);
    const y = backend.buffer(outer * inner);
    backend.addon.reduce(op, values, y, outer, count, inner, i === 0 ? scale : 1);
    if (values !== from) backend.release(values);
    values = y;
    shape.fill(1, first, last + 1);
  }
  return values;
}

function reduce(
  backend: NativeBackend,
  op: number,
  x: tf.TensorInfo,
  axis: number | number[],
  keepDims: boolean,
  mean = false,
): tf.TensorInfo | undefined {
  if (!isFloat(x) || sizeOf(x.shape) === 0) return undefined;
  const axes = sortedAxes(axis, x.shape);
  if (axes.length === 0) return undefined;
  const scale = mean ? 1 / sizeOf(axes.map((i) => x.shape[i] as number)) : 1;
  const values = reduceRuns(backend, op, x, axes, scale);
  const shape: number[] = [];
  for (let i = 0; i < x.shape.length; i++) {
    if (!axes.includes(i)) shape.push(x.shape[i] as number);
    else if (keepDims) shape.push(1);
  }
  return backend.tensor(values, shape);
}

/** Reductions. */
export function registerReduce(registry: Registry): void {
  type SumAttrs = { axis: number | number[]; keepDims: boolean };
  registry.override<One, SumAttrs>('Sum', (backend, { x }, { axis, keepDims }) =>
    reduce(backend, REDUCTION.sum, x, axis, keepDims),
  );
  registry.override<One, SumAttrs>('Mean', (backend, { x }, { axis, keepDims }) =>
    reduce(backend, REDUCTION.sum, x, axis, keepDims, true),
  );
  type MaxAttrs = { reductionIndices: number | number[]; keepDims: boolean };
  registry.override<One, MaxAttrs>('Max', (backend, { x }, { reductionIndices, keepDims }) =>
    reduce(backend, REDUCTION.max, x, reductionIndices, keepDims),
  );
  registry.override<One, { axis: number | number[] }>('ArgMax', (backend, { x }, { axis }) => {
    const rank = x.shape.length;
    const axes = sortedAxes(axis, x.shape);
    const columns = x.shape[rank - 1] ?? 0;
    if (!isFloat(x) || sizeOf(x.shape) === 0 || axes.length !== 1 || axes[0] !== rank - 1) return undefined;
    const shape = x.shape.slice(0, -1);
    const y = new Int32Array(sizeOf(shape));
    backend.addon.argMax(backend.floats(x), y, columns);
    return backend.makeTensorInfo(shape, 'int32', y);
  });
  registry.override<{ logits: tf.TensorInfo }, { dim: number }>('Softmax', (backend, { logits }, { dim }) => {
    const rank = logits.shape.length;
    const columns = logits.shape[rank - 1] ?? 0;
    const last = dim === -1 || dim === rank - 1;
    if (!isFloat(logits) || sizeOf(logits.shape) === 0 || !last) return undefined;
    const from = backend.floats(logits);
    const y = backend.buffer(from.length);
    backend.addon.softmax(from, y, columns);
    return backend.tensor(y, logits.shape);
  });
}
