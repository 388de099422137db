import * as tf from '@tensorflow/tfjs';
import type { NativeBackend } from '../backend.js';
import { isFloat, type One, type Registry, sizeOf } from './kernel.js';

const MAX_RANK = 6;

/** Plans of transposes (see Addon.transpose); absent when the addon's loops have too few axes. */
const plans = new Map<string, Int32Array | undefined>();

function planOf(shape: readonly number[], perm: readonly number[]): Int32Array | undefined {
  const key = `${shape.join()}|${perm.join()}`;
  if (!plans.has(key)) plans.set(key, makePlan(shape, perm));
  return plans.get(key);
}

/** Axes of one element are dropped and axes that stay together are merged: most transposes have two or three left. */
function makePlan(shape: readonly number[], perm: readonly number[]): Int32Array | undefined {
  const merged: { size: number; step: number; last: number }[] = [];
  for (const axis of perm) {
    const size = shape[axis] as number;
    if (size === 1) continue;
    const step = sizeOf(shape.slice(axis + 1));
    const previous = merged.at(-1);
    if (previous?.step === size * step) {
      previous.size *= size;
      previous.step = step;
    } else {
      merged.push({ size, step, last: axis });
    }
  }
  if (merged.length === 0) merged.push({ size: 1, step: 1, last: 0 });
  if (merged.length > MAX_RANK) return undefined;
  return Int32Array.from([merged.length, ...merged.map((axis) => axis.size), ...merged.map((axis) => axis.step)]);
}

/** x with its axes in another order. */
function transpose(backend: NativeBackend, { x }: One, { perm }: { perm: number[] }): tf.TensorInfo | undefined {
  const size = sizeOf(x.shape);
  if (!isFloat(x) || size === 0) return undefined;
  const plan = planOf(x.shape, perm);
  if (plan === undefined) return undefined;
  const y = backend.buffer(size);
  backend.addon.transpose(backend.floats(x), y, plan);
  return backend.tensor(
    y,
    perm.map((axis) => x.shape[axis] as number),
  );
}

/** Numbers of other types as float32. */
function toFloat(backend: NativeBackend, x: tf.TensorInfo): tf.TensorInfo | undefined {
  const { values } = backend.data.peek(x.dataId);
  if (!(values instanceof Int32Array || values instanceof Uint8Array)) return undefined;
  const y = backend.buffer(values.length);
  y.set(values);
  return backend.tensor(y, x.shape);
}

/** Kernels that change the shape or the type only, and the transpose. */
export function registerShape(registry: Registry): void {
  registry.override<One, object>('Identity', (backend, { x }) => backend.share(x, x.shape));
  registry.override<One, { shape: number[] }>('Reshape', (backend, { x }, { shape }) => {
    if (x.dtype === 'complex64') return undefined;
    const size = sizeOf(x.shape);
    const inferred = tf.util.inferFromImplicitShape(shape, size);
    return sizeOf(inferred) === size ? backend.share(x, inferred) : undefined;
  });
  registry.override<{ input: tf.TensorInfo }, { dim: number }>('ExpandDims', (backend, { input }, { dim }) => {
    if (input.dtype === 'complex64' || dim > input.shape.length || dim < -input.shape.length - 1) return undefined;
    return backend.share(input, input.shape.toSpliced(dim < 0 ? dim + input.shape.length + 1 : dim, 0, 1));
  });
  registry.override<One, { dtype: tf.DataType }>('Cast', (backend, { x }, { dtype }) => {
    if (dtype === x.dtype && dtype !== 'complex64') return backend.share(x, x.shape);
    return dtype === 'float32' && (x.dtype === 'int32' || x.dtype === 'bool') ? toFloat(backend, x) : undefined;
  });
  registry.override<One, { perm: number[] }>('Transpose', transpose);
}
