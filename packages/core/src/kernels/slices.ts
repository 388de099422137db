import * as tf from '@tensorflow/tfjs';
import { FrugalError } from '../errors.js';
import { type Composite, runOne } from './run.js';

/**
 * Chosen indices of an axis and a factor for each (default 1). How many there are the host knows, always; which they are it
 * knows where they are arrays. As tensors they stay on the engine, and nobody waits for them.
 */
export interface Selection {
  /** How many. */
  readonly size: number;
  /** The indices: an array of ascending and distinct ones, or an int32 tensor [size], which may repeat some. */
  readonly indices: Int32Array | tf.Tensor1D;
  /** A factor per index. */
  readonly scales?: Float32Array | tf.Tensor1D;
}

/** A selection of indices that the host knows. */
export function selectionOf(indices: Int32Array, scales?: Float32Array): HostSelection {
  return { size: indices.length, indices, ...(scales && { scales }) };
}

/** A selection of indices that the host knows. */
export interface HostSelection extends Selection {
  /** Ascending and distinct. */
  readonly indices: Int32Array;
  /** A factor per index. */
  readonly scales?: Float32Array;
}

/** A {@link Selection} to be used at once: its indices know how many they are. */
export type Chosen = Pick<Selection, 'indices' | 'scales'>;

interface Attrs extends Pick<HostSelection, 'indices' | 'scales'> {
  readonly axis: number;
  /** Slices of the result of `put`. */
  readonly size: number;
}

const scaled = (x: tf.Tensor, axis: number, scales: Selection['scales']): tf.Tensor => {
  if (scales === undefined) return x;
  const shape = x.shape.map((size, i) => (i === axis ? size : 1));
  return tf.mul(x, scales instanceof tf.Tensor ? tf.reshape(scales, shape) : tf.tensor(scales, shape, 'float32'));
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
export function takeSlices(x: tf.Tensor, axis: number, { indices, scales }: Chosen): tf.Tensor {
  if (indices instanceof tf.Tensor) return tf.tidy(() => scaled(tf.gather(x, indices, axis), axis, scales));
  if (scales instanceof tf.Tensor) return tf.tidy(() => scaled(takeSlices(x, axis, { indices }), axis, scales));
  return runOne(take.name, { x }, { axis, indices, scales });
}

/**
 * The inverse of {@link takeSlices}: a tensor of `size` slices along `axis`, zero but for the chosen ones; slices of one index,
 * where indices are a tensor, add up.
 *
 * @throws FrugalError `SHAPE` when the indices do not ascend
 */
export function putSlices(x: tf.Tensor, axis: number, size: number, { indices, scales }: Chosen): tf.Tensor {
  if (indices instanceof tf.Tensor) return tf.tidy(() => addInto(scaled(x, axis, scales), axis, size, indices));
  if (scales instanceof tf.Tensor) return tf.tidy(() => putSlices(scaled(x, axis, scales), axis, size, { indices }));
  if (indices.some((index, j) => j > 0 && index <= (indices[j - 1] as number))) {
    throw new FrugalError(
      'SHAPE',
      `putSlices: expected ascending indices but received ${[...indices.subarray(0, 8)].join(', ')}, …. Sort them, each once.`,
    );
  }
  return runOne(put.name, { x }, { axis, indices, size, scales });
}

/** Σ over slices of one index, at its place along `axis`. */
function addInto(x: tf.Tensor, axis: number, size: number, indices: tf.Tensor1D): tf.Tensor {
  if (axis === 0) return tf.unsortedSegmentSum(x, indices, size);
  const front = [axis, ...x.shape.map((_, i) => i).filter((i) => i !== axis)];
  const back = front.map((_, i) => front.indexOf(i));
  return tf.transpose(tf.unsortedSegmentSum(tf.transpose(x, front), indices, size), back);
}

/** Sum of squares of each slice of `x` along `axis`. */
export function squaredNorms(x: tf.Tensor, axis: number): tf.Tensor1D {
  return runOne(norms.name, { x }, { axis }) as tf.Tensor1D;
}
