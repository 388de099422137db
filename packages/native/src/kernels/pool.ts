import * as tf from '@tensorflow/tfjs';
import type { NativeBackend } from '../backend.js';
import { isFloat, type One, type Registry, sizeOf } from './kernel.js';

type Padding = Parameters<typeof tf.backend_util.computePool2DInfo>[4];

interface PoolAttrs {
  readonly filterSize: number | [number, number];
  readonly strides: number | [number, number];
  readonly pad: Padding;
  readonly dimRoundingMode?: 'floor' | 'round' | 'ceil';
}

interface Pooling {
  readonly outShape: number[];
  /** Numbers in the order of `PoolWindow` of cpp/loops.hpp. */
  readonly window: Int32Array;
}

const poolings = new Map<string, Pooling>();

function poolingOf(x: readonly number[], { filterSize, strides, pad, dimRoundingMode }: PoolAttrs): Pooling {
  const key = `${x.join()}|${filterSize.toString()}|${strides.toString()}|${pad.toString()}|${dimRoundingMode ?? ''}`;
  let found = poolings.get(key);
  if (found === undefined) {
    const shape = x as [number, number, number, number];
    const info = tf.backend_util.computePool2DInfo(shape, filterSize, strides, 1, pad, dimRoundingMode);
    const window = Int32Array.from([
      ...[info.batchSize, info.inHeight, info.inWidth, info.inChannels, info.outHeight, info.outWidth],
      ...[info.filterHeight, info.filterWidth, info.strideHeight, info.strideWidth],
      ...[info.padInfo.top, info.padInfo.left],
    ]);
    found = { outShape: info.outShape, window };
    poolings.set(key, found);
  }
  return found;
}

type Pool = 'maxPool' | 'avgPool';

function forward(backend: NativeBackend, pool: Pool, x: tf.TensorInfo, attrs: PoolAttrs): tf.TensorInfo | undefined {
  if (!isFloat(x) || sizeOf(x.shape) === 0) return undefined;
  const { outShape, window } = poolingOf(x.shape, attrs);
  const y = backend.buffer(sizeOf(outShape));
  backend.addon[pool](backend.floats(x), y, window);
  return backend.tensor(y, outShape);
}

/** Pooling, forward and backward. */
export function registerPool(registry: Registry): void {
  registry.override<One, PoolAttrs>('MaxPool', (backend, { x }, attrs) => forward(backend, 'maxPool', x, attrs));
  registry.override<One, PoolAttrs>('AvgPool', (backend, { x }, attrs) => forward(backend, 'avgPool', x, attrs));
  type MaxGradInputs = { dy: tf.TensorInfo; input: tf.TensorInfo; output: tf.TensorInfo };
  registry.override<MaxGradInputs, PoolAttrs>('MaxPoolGrad', (backend, { dy, input, output }, attrs) => {
    const size = sizeOf(input.shape);
    if (!isFloat(dy) || !isFloat(input) || !isFloat(output) || size === 0) return undefined;
    const { window } = poolingOf(input.shape, attrs);
    const dx = backend.buffer(size);
    backend.addon.maxPoolGrad(backend.floats(dy), backend.floats(input), backend.floats(output), dx, window);
    return backend.tensor(dx, input.shape);
  });
  type AvgGradInputs = { dy: tf.TensorInfo; input: tf.TensorInfo };
  registry.override<AvgGradInputs, PoolAttrs>('AvgPoolGrad', (backend, { dy, input }, attrs) => {
    const size = sizeOf(input.shape);
    if (!isFloat(dy) || size === 0) return undefined;
    const { window } = poolingOf(input.shape, attrs);
    const dx = backend.buffer(size);
    backend.addon.avgPoolGrad(backend.floats(dy), dx, window);
    return backend.tensor(dx, input.shape);
  });
}
