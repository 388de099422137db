import * as tf from '@tensorflow/tfjs';
import type { NativeBackend } from '../backend.js';
import { isFloat, type Registry, sameShape, sizeOf } from './kernel.js';
import { type ActivationAttrs, activate, knowsActivation } from './matmul.js';

type Conv2DInfo = ReturnType<typeof tf.backend_util.computeConv2DInfo>;
type Padding = Parameters<typeof tf.backend_util.computeConv2DInfo>[4];

/** How a window moves. */
export interface ConvAttrs {
  readonly strides: number | [number, number];
  readonly pad: Padding;
  readonly dataFormat?: 'NHWC' | 'NCHW';
  readonly dilations?: number | [number, number];
  readonly dimRoundingMode?: 'floor' | 'round' | 'ceil';
}

/** A convolution as the addon wants it. */
export interface Convolution {
  readonly outShape: number[];
  /** Numbers in the order of `ConvShape` of cpp/products.hpp; absent for what the addon does not do. */
  readonly shape: Int32Array | undefined;
}

/** oneDNN trusts the geometry: a dy of another shape would be read beyond its end. */
function requireShapes(
  kernel: string,
  dy: readonly number[],
  expected: readonly number[],
  x?: number,
  w?: number,
): void {
  if (sameShape(dy, expected) && x === w) return;
  const channels = `${x ?? '?'} input channels and a filter for ${w ?? '?'}`;
  throw new Error(
    `${kernel}: expected dy of shape [${expected.join(', ')}] but received [${dy.join(', ')}], with ${channels}.`,
  );
}

const convolutions = new Map<string, Convolution>();

/** The geometry of a convolution. It takes TensorFlow.js microseconds to compute, so it is kept. */
export function convolutionOf(x: readonly number[], filter: readonly number[], attrs: ConvAttrs): Convolution {
  const { strides, pad, dataFormat = 'NHWC', dilations = 1, dimRoundingMode } = attrs;
  const key = `${x.join()}|${filter.join()}|${strides.toString()}|${dilations.toString()}|${pad.toString()}|${dataFormat}|${dimRoundingMode ?? ''}`;
  let found = convolutions.get(key);
  if (found === undefined) {
    const info = tf.backend_util.computeConv2DInfo(
      x as [number, number, number, number],
      filter as [number, number, number, number],
      strides,
      dilations,
      pad,
      dimRoundingMode,
      false,
      tf.backend_util.convertConv2DDataFormat(dataFormat),
    );
    found = { outShape: info.outShape, shape: shapeOf(info) };
    convolutions.set(key, found);
  }
  return found;
}

/**
 * Padding after the end of an axis for which oneDNN computes the output size that TensorFlow.js has. They differ where
 * TensorFlow.js rounds up, and for numeric padding, where it uses the height's stride and filter for the width as well.
 * Absent where that cannot be had.
 */
function endPadding(
  size: number,
  out: number,
  window: number,
  stride: number,
  begin: number,
  end: number,
): number | undefined {
  const reached = size + begin + end - window;
  if (reached >= 0 && Math.floor(reached / stride) + 1 === out) return end;
  const needed = (out - 1) * stride + window - size - begin;
  return needed > -stride ? needed : undefined;
}

function shapeOf(info: Conv2DInfo): Int32Array | undefined {
  if (info.dataFormat !== 'channelsLast' || sizeOf(info.inShape) === 0 || sizeOf(info.outShape) === 0) return undefined;
  const { padInfo: pad, strideHeight, strideWidth } = info;
  const { effectiveFilterHeight, effectiveFilterWidth } = info;
  const bottom = endPadding(info.inHeight, info.outHeight, effectiveFilterHeight, strideHeight, pad.top, pad.bottom);
  const right = endPadding(info.inWidth, info.outWidth, effectiveFilterWidth, strideWidth, pad.left, pad.right);
  if (bottom === undefined || right === undefined) return undefined;
  return Int32Array.from([
    ...[info.batchSize, info.inHeight, info.inWidth, info.inChannels],
    ...[info.outHeight, info.outWidth, info.outChannels, info.filterHeight, info.filterWidth],
    ...[strideHeight, strideWidth, info.dilationHeight, info.dilationWidth],
    ...[pad.top, pad.left, bottom, right],
  ]);
}

interface ForwardInputs {
  readonly x: tf.TensorInfo;
  readonly filter: tf.TensorInfo;
  readonly bias?: tf.TensorInfo | null;
}

function forward(
  backend: NativeBackend,
  { x, filter, bias }: ForwardInputs,
  attrs: ConvAttrs & ActivationAttrs,
): tf.TensorInfo | undefined {
  if (!isFloat(x) || !isFloat(filter) || x.shape[3] !== filter.shape[2]) return undefined;
  const { outShape, shape } = convolutionOf(x.shape, filter.shape, attrs);
  if (shape === undefined) return undefined;
  let added: Float32Array | null = null;
  if (bias !== undefined && bias !== null) {
    if (!isFloat(bias) || sizeOf(bias.shape) !== outShape[3]) return undefined;
    added = backend.floats(bias);
  }
  const y = backend.buffer(sizeOf(outShape));
  const relu = attrs.activation === 'relu' ? 1 : 0;
  backend.addon.convForward(backend.floats(x), backend.floats(filter), added, y, shape, relu);
  activate(backend, y, attrs);
  return backend.tensor(y, outShape);
}

/** Convolutions, forward and backward. */
export function registerConv(registry: Registry): void {
  registry.override<ForwardInputs, ConvAttrs>('Conv2D', (backend, { x, filter }, attrs) =>
    forward(backend, { x, filter }, attrs),
  );
  registry.override<ForwardInputs, ConvAttrs & ActivationAttrs>('FusedConv2D', (backend, inputs, attrs) =>
    knowsActivation(attrs.activation) ? forward(backend, inputs, attrs) : undefined,
  );
  type InputGradInputs = { dy: tf.TensorInfo; filter: tf.TensorInfo };
  registry.override<InputGradInputs, ConvAttrs & { inputShape: number[] }>(
    'Conv2DBackpropInput',
    (backend, { dy, filter }, attrs) => {
      const { shape, outShape } = convolutionOf(attrs.inputShape, filter.shape, attrs);
      if (!isFloat(dy) || !isFloat(filter) || shape === undefined) return undefined;
      requireShapes('Conv2DBackpropInput', dy.shape, outShape, attrs.inputShape[3], filter.shape[2]);
      const dx = backend.buffer(sizeOf(attrs.inputShape));
      backend.addon.convInputGrad(backend.floats(dy), backend.floats(filter), dx, shape);
      return backend.tensor(dx, attrs.inputShape);
    },
  );
  type FilterGradInputs = { x: tf.TensorInfo; dy: tf.TensorInfo };
  registry.override<FilterGradInputs, ConvAttrs & { filterShape: number[] }>(
    'Conv2DBackpropFilter',
    (backend, { x, dy }, attrs) => {
      const { shape, outShape } = convolutionOf(x.shape, attrs.filterShape, attrs);
      if (!isFloat(x) || !isFloat(dy) || shape === undefined) return undefined;
      requireShapes('Conv2DBackpropFilter', dy.shape, outShape, x.shape[3], attrs.filterShape[2]);
      const dfilter = backend.buffer(sizeOf(attrs.filterShape));
      backend.addon.convFilterGrad(backend.floats(x), backend.floats(dy), dfilter, shape);
      return backend.tensor(dfilter, attrs.filterShape);
    },
  );
}
