import type { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs';
import type { Tally, WasmBackend } from './backend.js';
import { dropView, floats, view } from './backend.js';
import { bridged } from './bridge.js';
import type { Kernel, Kernels } from './kernel.js';
import { compose, need, reshaped } from './kernel.js';

type Info = tf.backend_util.Conv2DInfo;
type Shape4 = [number, number, number, number];

interface ConvAttrs {
  readonly strides: number | [number, number];
  readonly pad: 'same' | 'valid' | number | tf.backend_util.ExplicitPadding;
  readonly dataFormat?: 'NHWC' | 'NCHW';
  readonly dimRoundingMode?: 'floor' | 'round' | 'ceil';
}

const channelsFirst = (attrs: ConvAttrs): boolean => attrs.dataFormat === 'NCHW';

function geometry(xShape: readonly number[], wShape: readonly number[], attrs: ConvAttrs): Info {
  const { strides, pad, dimRoundingMode } = attrs;
  return tf.backend_util.computeConv2DInfo(xShape as Shape4, wShape as Shape4, strides, 1, pad, dimRoundingMode);
}

/** The outputs along one axis that a tap reads inside the image: [first, end), and the input of the first. */
interface Reach {
  readonly first: number;
  readonly end: number;
  readonly input: number;
}

function reach(tap: number, pad: number, stride: number, inputs: number, outputs: number): Reach {
  const first = Math.min(outputs, Math.max(0, Math.ceil((pad - tap) / stride)));
  const end = Math.max(first, Math.min(outputs, Math.floor((inputs - 1 + pad - tap) / stride) + 1));
  return { first, end, input: first * stride - pad + tap };
}

type Row = (input: number, output: number, pixels: number) => void;

/** Calls `row` for each row of outputs that tap (u, v) reaches, with the pixel number of its first input and output. */
function eachRow(info: Info, u: number, v: number, row: Row): void {
  const { inHeight, inWidth, outHeight, outWidth, strideHeight, strideWidth, padInfo } = info;
  const ys = reach(u, padInfo.top, strideHeight, inHeight, outHeight);
  const xs = reach(v, padInfo.left, strideWidth, inWidth, outWidth);
  if (xs.end <= xs.first) return;
  for (let n = 0; n < info.batchSize; n++) {
    for (let y = ys.first; y < ys.end; y++) {
      const inputRow = n * inHeight + ys.input + (y - ys.first) * strideHeight;
      const outputRow = n * outHeight + y;
      row(inputRow * inWidth + xs.input, outputRow * outWidth + xs.first, xs.end - xs.first);
    }
  }
}

/** dx[input] += columns[output] for every output that tap (u, v) reaches. */
function scatterTap(columns: Float32Array, dx: Float32Array, info: Info, u: number, v: number): void {
  const { inChannels: channels, strideWidth: stride } = info;
  eachRow(info, u, v, (input, output, pixels) => {
    for (let i = 0; i < pixels; i++) {
      const target = (input + i * stride) * channels;
      const from = (output + i) * channels;
      for (let c = 0; c < channels; c++) dx[target + c] = (dx[target + c] as number) + (columns[from + c] as number);
    }
  });
}

const NN = { transposeA: false, transposeB: false };

/** Zeroes the rows and columns of every plane of outputs that a tap does not reach. */
function zeroEdges(to: Float32Array, info: Info, ys: Reach, xs: Reach): void {
  const { outHeight, outWidth } = info;
  for (let plane = 0; plane < to.length; plane += outHeight * outWidth) {
    to.fill(0, plane, plane + ys.first * outWidth);
    to.fill(0, plane + ys.end * outWidth, plane + outHeight * outWidth);
    for (let y = ys.first; y < ys.end; y++) {
      const row = plane + y * outWidth;
      for (let x = 0; x < xs.first; x++) to[row + x] = 0;
      for (let x = xs.end; x < outWidth; x++) to[row + x] = 0;
    }
  }
}

/**
 * The inputs under tap (u, v): from planes [H, W] to planes [outH, outW], with 0 in the padding. At stride 1 with equal
 * sizes the whole tensor only shifts: one memcpy, and what slid across an edge is zeroed.
 */
function gatherTap(from: Float32Array, to: Float32Array, info: Info, u: number, v: number): void {
  const { inHeight, inWidth, outHeight, outWidth, strideHeight, strideWidth, padInfo } = info;
  const ys = reach(u, padInfo.top, strideHeight, inHeight, outHeight);
  const xs = reach(v, padInfo.left, strideWidth, inWidth, outWidth);
  if (strideHeight === 1 && strideWidth === 1 && inHeight === outHeight && inWidth === outWidth) {
    const shift = (u - padInfo.top) * inWidth + v - padInfo.left;
    // A tap that lies wholly in the padding may shift by more than the tensor.
    if (shift >= 0) to.set(from.subarray(Math.min(shift, from.length)), 0);
    else if (-shift < to.length) to.set(from.subarray(0, from.length + shift), -shift);
    zeroEdges(to, info, ys, xs);
    return;
  }
  to.fill(0);
  const planes = to.length / (outHeight * outWidth);
  for (let plane = 0; plane < planes; plane++) {
    for (let y = ys.first; y < ys.end; y++) {
      const target = (plane * outHeight + y) * outWidth;
      const start = (plane * inHeight + ys.input + (y - ys.first) * strideHeight) * inWidth + xs.input;
      for (let x = xs.first; x < xs.end; x++) to[target + x] = from[start + (x - xs.first) * strideWidth] as number;
    }
  }
}

/** Fewer rows than this leave XNNPACK's kernels half empty, so that several taps share a product. */
const ROWS = 32;

/**
 * dW[u,v] = X_uvᵀ·dY, where X_uvᵀ [C, pixels] holds the inputs under tap (u, v). x is transposed once, and dY is always
 * the right operand: XNNPACK packs that one (2-10 ns per value) and keeps it packed for all taps, whereas the left one is
 * read as it lies. wasm 4.22 has no such kernel.
 */
const backpropFilter =
  (onCpu: Kernel): Kernel =>
  (inputs, attrs, backend) => {
    if (channelsFirst(attrs as ConvAttrs)) return onCpu(inputs, attrs, backend);
    const [x, dy] = [need(inputs, 'x'), need(inputs, 'dy')];
    const { filterShape } = attrs as { filterShape: number[] };
    const info = geometry(x.shape, filterShape, attrs as ConvAttrs);
    const { inChannels: C, outChannels: O, filterWidth } = info;
    const pixels = info.batchSize * info.outHeight * info.outWidth;
    const taps = info.filterHeight * filterWidth;
    const dw = backend.makeOutput(filterShape, 'float32');
    // A view has its own number in C++, so that dropping it frees the packed copy of dY (batch_mat_mul_impl.cc 4.22).
    const right = view(backend, dy, 0, [pixels, O]);
    compose(backend, (run) => {
      const xT = run(
        'Transpose',
        { x: reshaped(x, [x.shape.slice(0, 3).reduce((a, b) => a * b, 1), C]) },
        { perm: [1, 0] },
      );
      const group = Math.min(taps, Math.ceil(ROWS / C));
      const patches = run('Fill', {}, { shape: [group * C, pixels], value: 0, dtype: 'float32' });
      for (let tap = 0; tap < taps; tap += group) {
        const count = Math.min(group, taps - tap);
        const [from, to] = [floats(backend, xT), floats(backend, patches)];
        for (let i = 0; i < count; i++) {
          const part = to.subarray(i * C * pixels, (i + 1) * C * pixels);
          gatherTap(from, part, info, Math.floor((tap + i) / filterWidth), (tap + i) % filterWidth);
        }
        product(backend, reshaped(patches, [count * C, pixels]), right, dw, tap * C * O);
      }
      return [];
    });
    dropView(backend, right);
    return dw;
  };

/** Writes a·b into `to` from element `start`. */
function product(backend: WasmBackend, a: tf.TensorInfo, b: tf.TensorInfo, to: tf.TensorInfo, start: number): void {
  compose(backend, (run) => {
    const ab = run('BatchMatMul', { a, b }, NN);
    floats(backend, to).set(floats(backend, ab), start);
    return [];
  });
}

/** The forward padding that makes a stride-1 convolution of dy with the flipped filter equal dx, if it is one. */
function flippedPad(info: Info): tf.backend_util.ExplicitPadding | undefined {
  const { filterHeight, filterWidth, padInfo, strideHeight, strideWidth, outHeight, outWidth, inHeight, inWidth } =
    info;
  const top = filterHeight - 1 - padInfo.top;
  const left = filterWidth - 1 - padInfo.left;
  const bottom = inHeight + filterHeight - 1 - outHeight - top;
  const right = inWidth + filterWidth - 1 - outWidth - left;
  const usable = strideHeight === 1 && strideWidth === 1 && Math.min(top, left, bottom, right) >= 0;
  return usable
    ? [
        [0, 0],
        [top, bottom],
        [left, right],
        [0, 0],
      ]
    : undefined;
}

/** dx = Conv2D(dy, flipped and transposed filter): 38 GF/s, where upstream's own kernel is a scalar loop of 4. */
function inputByConv(
  backend: WasmBackend,
  info: Info,
  dy: tf.TensorInfo,
  w: tf.TensorInfo,
  pad: object,
): tf.TensorInfo {
  const { filterHeight, filterWidth, inChannels: C, outChannels: O } = info;
  const taps = filterHeight * filterWidth;
  return compose(backend, (run) => {
    const wT = run('Transpose', { x: reshaped(w, [taps, C, O]) }, { perm: [0, 2, 1] });
    const flipped = run('Fill', {}, { shape: [filterHeight, filterWidth, O, C], value: 0, dtype: 'float32' });
    const [from, to] = [floats(backend, wT), floats(backend, flipped)];
    for (let tap = 0; tap < taps; tap++) {
      to.set(from.subarray(tap * O * C, (tap + 1) * O * C), (taps - 1 - tap) * O * C);
    }
    return run('Conv2D', { x: dy, filter: flipped }, { strides: [1, 1], pad, dilations: [1, 1], dataFormat: 'NHWC' });
  });
}

/** dx = Σ_uv scatter(dY·W_uvᵀ): exact for every stride and padding, without the zeros that a strided dy would need. */
function inputByTaps(backend: WasmBackend, info: Info, dy: tf.TensorInfo, w: tf.TensorInfo): tf.TensorInfo {
  const { filterHeight, filterWidth, inChannels: C, outChannels: O } = info;
  const taps = filterHeight * filterWidth;
  const rows = reshaped(dy, [info.batchSize * info.outHeight * info.outWidth, O]);
  return compose(backend, (run) => {
    const dx = run('Fill', {}, { shape: info.inShape, value: 0, dtype: 'float32' });
    const wT = run('Transpose', { x: reshaped(w, [taps, C, O]) }, { perm: [0, 2, 1] });
    for (let tap = 0; tap < taps; tap++) {
      compose(backend, (inner) => {
        const one = view(backend, wT, tap * O * C, [O, C]);
        const columns = inner('BatchMatMul', { a: rows, b: one }, NN);
        dropView(backend, one);
        const [u, v] = [Math.floor(tap / filterWidth), tap % filterWidth];
        scatterTap(floats(backend, columns), floats(backend, dx), info, u, v);
        return [];
      });
    }
    return dx;
  });
}

const backpropInput =
  (onCpu: Kernel): Kernel =>
  (inputs, attrs, backend) => {
    if (channelsFirst(attrs as ConvAttrs)) return onCpu(inputs, attrs, backend);
    const [dy, w] = [need(inputs, 'dy'), need(inputs, 'filter')];
    const info = geometry((attrs as { inputShape: number[] }).inputShape, w.shape, attrs as ConvAttrs);
    const pad = flippedPad(info);
    return pad === undefined ? inputByTaps(backend, info, dy, w) : inputByConv(backend, info, dy, w, pad);
  };

/** The gradients of Conv2D. */
export function convKernels(cpu: MathBackendCPU, tally: Tally): Kernels {
  return {
    Conv2DBackpropInput: backpropInput(bridged('Conv2DBackpropInput', cpu, tally)),
    Conv2DBackpropFilter: backpropFilter(bridged('Conv2DBackpropFilter', cpu, tally)),
  };
}
