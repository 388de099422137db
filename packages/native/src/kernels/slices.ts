import * as tf from '@tensorflow/tfjs';
import { around, type One, type Registry } from './kernel.js';

/** Rows of at least so many columns are not written into zeros before somebody needs the zeros. */
const PENDING_COLUMNS = 64;

interface SliceAttrs {
  readonly axis: number;
  readonly indices: Int32Array;
  readonly scales?: Float32Array | null;
}

function fits({ indices, scales }: SliceAttrs, size: number): boolean {
  if (scales !== undefined && scales !== null && scales.length !== indices.length) return false;
  // An index outside would be a wild write: cheap to check against moving the slices.
  for (let i = 0; i < indices.length; i++) {
    const index = indices[i] as number;
    if (index < 0 || index >= size) return false;
  }
  return indices.length > 0;
}

/** Zeros and slices are written in one walk, in order. */
function ascend(indices: Int32Array): boolean {
  for (let i = 1; i < indices.length; i++) if ((indices[i] as number) <= (indices[i - 1] as number)) return false;
  return true;
}

/** Taking slices along an axis, and placing them in zeros. */
export function registerSlices(registry: Registry): void {
  registry.custom<One, SliceAttrs>('FrugalTake', (backend, { x }, attrs) => {
    const { indices, scales = null } = attrs;
    const axis = attrs.axis < 0 ? attrs.axis + x.shape.length : attrs.axis;
    const { outer, count, inner } = around(x.shape, axis);
    if (!fits(attrs, count)) return undefined;
    const y = backend.buffer(outer * indices.length * inner);
    backend.addon.take(backend.floats(x), indices, scales, y, outer, count, inner);
    return backend.tensor(y, x.shape.with(axis, indices.length));
  });
  registry.custom<One, SliceAttrs & { size: number }>('FrugalPut', (backend, { x }, attrs) => {
    const { indices, scales = null, size } = attrs;
    const axis = attrs.axis < 0 ? attrs.axis + x.shape.length : attrs.axis;
    const { outer, count, inner } = around(x.shape, axis);
    if (count !== indices.length || !fits(attrs, size) || !ascend(indices)) return undefined;
    const matrix = axis === 0 && x.shape.length === 2 && inner >= PENDING_COLUMNS;
    if (matrix && scales === null && x instanceof tf.Tensor) return backend.pendingRows(x as tf.Tensor, indices, size);
    const y = backend.buffer(outer * size * inner);
    backend.addon.put(backend.floats(x), indices, scales, y, outer, size, inner);
    return backend.tensor(y, x.shape.with(axis, size));
  });
}
