import type * as tf from '@tensorflow/tfjs';
import { convolutionOf } from './conv.js';
import { type One, type Registry, sizeOf } from './kernel.js';

interface GramAttrs {
  readonly ones: boolean;
  readonly window?: {
    readonly size: readonly [height: number, width: number];
    readonly strides: readonly [number, number];
    readonly pad: 'same' | 'valid';
  } | null;
}

/** The geometry of a window that fits at least once; absent otherwise. */
function shapeOf(x: readonly number[], window: NonNullable<GramAttrs['window']>): Int32Array | undefined {
  if (x.length !== 4) return undefined;
  const [strideHeight, strideWidth] = window.strides;
  const attrs = { strides: [strideHeight, strideWidth] as [number, number], pad: window.pad };
  const { outShape, shape } = convolutionOf(x, [...window.size, x[3] as number, 1], attrs);
  return outShape.every((size) => size > 0) ? shape : undefined;
}

/** Sums of r·rᵀ over rows or patches, without writing the patches out. */
export function registerGram(registry: Registry): void {
  registry.custom<One, GramAttrs>('FrugalGram', (backend, { x }, { ones, window }): tf.TensorInfo | undefined => {
    const extra = ones ? 1 : 0;
    const columns = x.shape.at(-1) ?? 1;
    const size = window?.size ?? [1, 1];
    const n = size[0] * size[1] * columns + extra;
    const shape = window && shapeOf(x.shape, window);
    if (window && shape === undefined) return undefined;
    const y = backend.buffer(n * n);
    if (shape) backend.addon.gramWindow(backend.floats(x), y, shape, extra);
    else backend.addon.gram(backend.floats(x), y, sizeOf(x.shape) / columns, columns, extra);
    return backend.tensor(y, [n, n]);
  });
}
