import * as tf from '@tensorflow/tfjs';
import { FrugalError } from '../errors.js';
import { type Composite, runOne } from './run.js';

/** Chosen indices of an axis, ascending and distinct, and a factor for each (default 1). */
export interface Selection {
  /** The indices. */
  readonly indices: Int32Array;
  /** A factor per index. */
  readonly scales?: Float32Array;
}

interface Attrs extends Selection {
  readonly axis: number;
  readonly size: number;
}

const scaled = (x: tf.Tensor, axis: number, scales: Float32Array | undefined): tf.Tensor => {
  if (scales === undefined) return x;
  const shape = x.shape.map((_, i) => (i === axis ? scales.length : 1));
  return tf.mul(x, tf.tensor(scales, shape, 'float32'));
};

const take: Composite = {
  name: 'FrugalTake',
  compute: ({ x }: Record<string, tf.Tensor>, { axis, indices, scales }: Attrs) =>
    scaled(tf.gather(x as tf.Tensor, tf.tensor1d(indices, 'int32'), axis), axis, scales),
};

const put: Composite = {
  name: 'FrugalPut',
  compute: ({ x }: Record<string, tf.Tensor>, { axis, indices, scales, size }: Attrs) => {
    const slices = scaled(x as tf.Tensor, axis, scales);
    const blank = tf.zeros(slices.shape.map((n, i) => (i === axis ? 1 : n)));
    const source = new Int32Array(size).fill(indices.length);
    indices.forEach((target, j) => {
      source[target] = j;
    });
    return tf.gather(tf.concat([slices, blank], axis), tf.tensor1d(source, 'int32'), axis);
  },
};

const norms: Composite = {
  name: 'FrugalNorms',
  compute: ({ x }: Record<string, tf.Tensor>, { axis }: Attrs) => {
    const t = x as tf.Tensor;
    return tf.sum(
      tf.square(t),
      t.shape.map((_, i) => i).filter((i) => i !== axis),
    );
  },
};

/** The composites of this file. */
export const sliceComposites = [take, put, norms];

/** The chosen slices of `x` along `axis`, each times its factor. */
export function takeSlices(x: tf.Tensor, axis: number, { indices, scales }: Selection): tf.Tensor {
  return runOne(take.name, { x }, { axis, indices, scales });
}

/**
 * The inverse of {@link takeSlices}: a tensor of `size` slices along `axis`, zero but for the chosen ones.
 *
 * @throws FrugalError `SHAPE` when the indices do not ascend
 */
export function putSlices(x: tf.Tensor, axis: number, size: number, { indices, scales }: Selection): tf.Tensor {
  if (indices.some((index, j) => j > 0 && index <= (indices[j - 1] as number))) {
    throw new FrugalError(
      'SHAPE',
      `putSlices: expected ascending indices but received ${[...indices.subarray(0, 8)].join(', ')}, …. Sort them, each once.`,
    );
  }
  return runOne(put.name, { x }, { axis, indices, size, scales });
}

/** Sum of squares of each slice of `x` along `axis`. */
export function squaredNorms(x: tf.Tensor, axis: number): tf.Tensor1D {
  return runOne(norms.name, { x }, { axis }) as tf.Tensor1D;
}
