import * as tf from '@tensorflow/tfjs';
import { floats, sizeOf } from './backend.js';
import { stockKernel } from './copy.js';
import type { Kernel, Kernels } from './kernel.js';
import { at, need } from './kernel.js';

/** Rows of an embedding, one memcpy each: upstream gathers element by element (Gather.cc 4.22), 30 times slower. */
const gatherRows =
  (stock: Kernel): Kernel =>
  (inputs, attrs, backend) => {
    const [x, indices] = [need(inputs, 'x'), need(inputs, 'indices')];
    const { axis, batchDims } = attrs as { axis: number; batchDims?: number };
    const plain = x.dtype === 'float32' && indices.dtype === 'int32' && (batchDims ?? 0) === 0;
    if (!plain || at(tf.util.parseAxisParam(axis, x.shape), 0) !== 0) return stock(inputs, attrs, backend);
    const rows = at(x.shape, 0);
    const width = sizeOf(x.shape.slice(1));
    const out = backend.makeOutput([...indices.shape, ...x.shape.slice(1)], 'float32');
    const [from, to, which] = [floats(backend, x), floats(backend, out), backend.typedArrayFromHeap(indices)];
    for (let i = 0; i < which.length; i++) {
      const row = which[i] as number;
      if (row < 0 || row >= rows) {
        backend.disposeData(out.dataId);
        throw new Error(`GatherV2: expected an index in [0, ${rows - 1}] but received ${row}.`);
      }
      to.set(from.subarray(row * width, (row + 1) * width), i * width);
    }
    return out;
  };

/**
 * out[s] = Σ of the x[i] whose segment is s: the gradient of an embedding. wasm 4.22 has no such kernel, and the one of
 * 'cpu' reads all of x once per segment. A segment out of range is dropped, as on 'cpu'.
 */
const segmentSum =
  (bridge: Kernel): Kernel =>
  (inputs, attrs, backend) => {
    const [x, ids] = [need(inputs, 'x'), need(inputs, 'segmentIds')];
    const { numSegments } = attrs as { numSegments: number };
    if (x.dtype !== 'float32' || ids.dtype !== 'int32' || ids.shape.length !== 1) return bridge(inputs, attrs, backend);
    const out = backend.makeOutput([numSegments, ...x.shape.slice(1)], 'float32');
    const width = sizeOf(x.shape.slice(1));
    const [from, to, which] = [floats(backend, x), floats(backend, out), backend.typedArrayFromHeap(ids)];
    to.fill(0);
    for (let i = 0; i < which.length; i++) {
      const segment = which[i] as number;
      if (segment < 0 || segment >= numSegments) continue;
      const [target, start] = [segment * width, i * width];
      for (let c = 0; c < width; c++) to[target + c] = (to[target + c] as number) + (from[start + c] as number);
    }
    return out;
  };

/** Embedding lookup and its gradient; call after the bridges, one of which is the fallback. */
export function gatherKernels(): Kernels {
  return {
    GatherV2: gatherRows(stockKernel('GatherV2')),
    UnsortedSegmentSum: segmentSum(stockKernel('UnsortedSegmentSum')),
  };
}
