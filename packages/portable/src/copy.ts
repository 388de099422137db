import * as tf from '@tensorflow/tfjs';
import type { WasmBackend } from './backend.js';
import { floats, NAME, sizeOf } from './backend.js';
import type { Inputs, Kernel, Kernels } from './kernel.js';
import { at, need } from './kernel.js';

interface SliceAttrs {
  readonly begin: number | number[];
  readonly size: number | number[];
}

/** Copies the box of `size` at `begin`; trailing axes that are taken whole are moved as one run. */
function copyBox(from: Float32Array, to: Float32Array, shape: number[], begin: number[], size: number[]): void {
  let run = 1;
  let axis = shape.length - 1;
  while (axis > 0 && size[axis] === shape[axis]) run *= at(shape, axis--);
  const strides = [...tf.util.computeStrides(shape), 1];
  const width = run * (axis < 0 ? 1 : at(size, axis));
  let target = 0;
  const walk = (level: number, offset: number): void => {
    const start = offset + at(begin, level) * at(strides, level);
    if (level === axis) {
      to.set(from.subarray(start, start + width), target);
      target += width;
      return;
    }
    for (let i = 0; i < at(size, level); i++) walk(level + 1, start + i * at(strides, level));
  };
  walk(0, 0);
}

function box(backend: WasmBackend, x: tf.TensorInfo, begin: number[], size: number[]): tf.TensorInfo {
  const out = backend.makeOutput(size, x.dtype);
  if (sizeOf(size) > 0) copyBox(floats(backend, x), floats(backend, out), x.shape, begin, size);
  return out;
}

const copyable = (x: tf.TensorInfo): boolean => x.dtype === 'float32' && x.shape.length > 0;

/** `begin` and `size` for every axis: both may be short, and a size of -1 or none takes the rest. */
function boxOf(shape: number[], { begin, size }: SliceAttrs): [number[], number[]] {
  const begins = Array.isArray(begin) ? begin : [begin];
  const sizes = Array.isArray(size) ? size : [size];
  const $begin = shape.map((_, i) => begins[i] ?? 0);
  const $size = shape.map((whole, i) => {
    const wanted = sizes[i] ?? -1;
    return wanted < 0 ? whole - at($begin, i) : wanted;
  });
  const fits = shape.every((whole, i) => at($begin, i) >= 0 && at($begin, i) + at($size, i) <= whole);
  if (!fits) {
    throw new Error(
      `Slice: expected a box inside [${shape.join()}] but received begin ${begins.join()}, size ${sizes.join()}.`,
    );
  }
  return [$begin, $size];
}

/** Upstream copies the whole input out of the heap before every slice (Slice.ts 4.22): an Unpack of n parts costs n². */
const slice =
  (stock: Kernel): Kernel =>
  (inputs, attrs, backend) => {
    const x = need(inputs, 'x');
    if (!copyable(x)) return stock(inputs, attrs, backend);
    const [$begin, $size] = boxOf(x.shape, attrs as SliceAttrs);
    return box(backend, x, $begin, $size);
  };

/** Consecutive parts of `x` along `axis`. */
function parts(backend: WasmBackend, x: tf.TensorInfo, axis: number, widths: readonly number[]): tf.TensorInfo[] {
  const begin = x.shape.map(() => 0);
  return widths.map((width) => {
    const out = box(
      backend,
      x,
      begin,
      x.shape.map((size, i) => (i === axis ? width : size)),
    );
    begin[axis] = at(begin, axis) + width;
    return out;
  });
}

const unpack =
  (stock: Kernel): Kernel =>
  (inputs, attrs, backend) => {
    const value = need(inputs, 'value');
    if (!copyable(value)) return stock(inputs, attrs, backend);
    const axis = at(tf.util.parseAxisParam((attrs as { axis: number }).axis, value.shape), 0);
    const shape = value.shape.filter((_, i) => i !== axis);
    const ones = Array.from({ length: at(value.shape, axis) }, () => 1);
    return parts(backend, value, axis, ones).map((info) => ({ ...info, shape }));
  };

/** The widths of a split; one of a list may be -1, for what the others leave. */
function widthsOf(whole: number, split: number | readonly number[]): number[] {
  if (typeof split === 'number') return Array.from({ length: split }, () => whole / split);
  const given = split.reduce((sum, width) => sum + Math.max(width, 0), 0);
  const widths = split.map((width) => (width < 0 ? whole - given : width));
  if (whole !== widths.reduce((a, b) => a + b, 0)) {
    throw new Error(`SplitV: expected widths that sum to ${whole} but received ${split.join()}.`);
  }
  return widths;
}

const splitV =
  (stock: Kernel): Kernel =>
  (inputs, attrs, backend) => {
    const x = need(inputs, 'x');
    if (!copyable(x)) return stock(inputs, attrs, backend);
    const { numOrSizeSplits, axis } = attrs as { numOrSizeSplits: number | number[]; axis: number };
    const $axis = at(tf.util.parseAxisParam(axis, x.shape), 0);
    return parts(backend, x, $axis, widthsOf(at(x.shape, $axis), numOrSizeSplits));
  };

const TILE = 16;

/** [rows, columns] to [columns, rows], in tiles that stay in the first-level cache. */
function transposeTiles(from: Float32Array, to: Float32Array, rows: number, columns: number): void {
  for (let r0 = 0; r0 < rows; r0 += TILE) {
    const r1 = Math.min(r0 + TILE, rows);
    for (let c0 = 0; c0 < columns; c0 += TILE) {
      const c1 = Math.min(c0 + TILE, columns);
      for (let c = c0; c < c1; c++) {
        for (let r = r0; r < r1; r++) to[c * rows + r] = from[r * columns + c] as number;
      }
    }
  }
}

/** [batch, rows, columns] if `perm` only swaps two neighbouring groups of axes at the end, otherwise undefined. */
function asMatrices(shape: number[], perm: readonly number[]): [number, number, number] | undefined {
  let lead = 0;
  while (lead < perm.length && perm[lead] === lead) lead++;
  const second = perm.indexOf(lead);
  if (second < 0) return undefined;
  const middle = at(perm, lead);
  const swapped = perm.every((axis, i) => {
    if (i < lead) return true;
    return axis === (i < second ? middle + i - lead : lead + i - second);
  });
  if (!swapped) return undefined;
  return [sizeOf(shape.slice(0, lead)), sizeOf(shape.slice(lead, middle)), sizeOf(shape.slice(middle))];
}

/** Upstream's transposition walks the output element by element: 7 ms for 1024² (transpose_impl.cc 4.22). */
const transpose =
  (stock: Kernel): Kernel =>
  (inputs, attrs, backend) => {
    const x = need(inputs, 'x');
    const { perm } = attrs as { perm: number[] };
    const dims = x.dtype === 'float32' ? asMatrices(x.shape, perm) : undefined;
    if (dims === undefined || dims[1] === 1 || dims[2] === 1) return stock(inputs, attrs, backend);
    const [batch, rows, columns] = dims;
    const out = backend.makeOutput(
      perm.map((axis) => at(x.shape, axis)),
      'float32',
    );
    const [from, to] = [floats(backend, x), floats(backend, out)];
    for (let i = 0; i < batch; i++) {
      const start = i * rows * columns;
      const end = start + rows * columns;
      transposeTiles(from.subarray(start, end), to.subarray(start, end), rows, columns);
    }
    return out;
  };

/** The kernel copied from upstream, callable as one of ours. */
export function stockKernel(name: string): Kernel {
  const { kernelFunc } = tf.getKernel(name, NAME);
  return (inputs: Inputs, attrs, backend) =>
    kernelFunc({ inputs: inputs as tf.NamedTensorInfoMap, backend, attrs: attrs as tf.NamedAttrMap });
}

/** The kernels that move values without computing. */
export function copyKernels(): Kernels {
  return {
    Slice: slice(stockKernel('Slice')),
    Unpack: unpack(stockKernel('Unpack')),
    SplitV: splitV(stockKernel('SplitV')),
    Transpose: transpose(stockKernel('Transpose')),
  };
}
