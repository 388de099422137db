import * as tf from '@tensorflow/tfjs';
import { FrugalError } from '../errors.js';
import { type Composite, runOne } from './run.js';

/** The window of a convolution, whose patches are the rows. */
export interface Window {
  /** Height and width. */
  readonly size: readonly [height: number, width: number];
  /** Step in height and in width. */
  readonly strides: readonly [height: number, width: number];
  /** `'same'` pads with zeros; `'valid'` does not. */
  readonly pad: 'same' | 'valid';
}

/** What the rows of {@link gram} are. */
export interface GramOptions {
  /** A 1 at the end of each row, as the input of a bias. Default false. */
  readonly ones?: boolean;
  /** Rows are the patches of x NHWC under this window, flattened as its weights are: [height, width, channels]. */
  readonly window?: Window;
}

interface Attrs {
  readonly ones: boolean;
  readonly window?: Window;
}

/** Patches of x [B, H, W, C] as rows [B·T, kh·kw·C], zero where the window reaches beyond the image. */
function patches(x: tf.Tensor4D, { size: [kh, kw], strides, pad }: Window): tf.Tensor2D {
  const channels = x.shape[3];
  const { padInfo, outHeight, outWidth } = tf.backend_util.computeConv2DInfo(
    x.shape,
    [kh, kw, channels, 1],
    [...strides],
    1,
    pad,
  );
  const { top, bottom, left, right } = padInfo;
  const padded = tf.pad4d(x, [
    [0, 0],
    [top, bottom],
    [left, right],
    [0, 0],
  ]);
  const [batch] = x.shape;
  const [sh, sw] = strides;
  const parts: tf.Tensor4D[] = [];
  for (let u = 0; u < kh; u++) {
    for (let v = 0; v < kw; v++) {
      const end = [batch, u + (outHeight - 1) * sh + 1, v + (outWidth - 1) * sw + 1, channels];
      parts.push(tf.stridedSlice(padded, [0, u, v, 0], end, [1, sh, sw, 1]) as tf.Tensor4D);
    }
  }
  return tf.reshape(parts.length === 1 ? (parts[0] as tf.Tensor4D) : tf.concat(parts, 3), [-1, kh * kw * channels]);
}

const compute = ({ x }: Record<string, tf.Tensor>, { ones, window }: Attrs): tf.Tensor => {
  const given = x as tf.Tensor;
  const rows: tf.Tensor2D = window
    ? patches(given as tf.Tensor4D, window)
    : tf.reshape(given, [-1, given.shape.at(-1) as number]);
  const all = ones ? tf.concat([rows, tf.ones([rows.shape[0], 1])], 1) : rows;
  return tf.matMul(all, all, true, false);
};

const product: Composite = { name: 'FrugalGram', compute };

/** The composites of this file. */
export const gramComposites = [product];

/**
 * Gram matrix Σ r·rᵀ [n, n] of rows r: those of x [..., n], or the patches of x [B, H, W, C] under a window, n = kh·kw·C, each
 * followed by 1 if asked (then n is one more). Symmetric. What K-FAC's factors are made of.
 *
 * Cost: rows·n² multiply-adds; the native engine makes no patches, needs half of it by symmetry, and for windows of stride 1
 * shares the products of patches that overlap.
 *
 * @throws FrugalError `SHAPE` where a window is given and x is not of rank 4, or has no place for the window
 */
export function gram(x: tf.Tensor, { ones = false, window }: GramOptions = {}): tf.Tensor2D {
  if (window && x.rank !== 4) {
    throw new FrugalError(
      'SHAPE',
      `gram: expected x [B, H, W, C] for a window but received [${x.shape.join(', ')}]. Drop the window, or pass images.`,
    );
  }
  if (window?.pad === 'valid' && window.size.some((size, axis) => size > (x.shape[axis + 1] as number))) {
    throw new FrugalError(
      'SHAPE',
      `gram: expected images of at least [${window.size.join(', ')}] but received [${x.shape.join(', ')}]. Pad them.`,
    );
  }
  return runOne(product.name, { x }, { ones, ...(window && { window }) }) as tf.Tensor2D;
}
