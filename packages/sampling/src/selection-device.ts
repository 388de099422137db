import * as tf from '@tensorflow/tfjs';
import type { Selection, Stream } from '@frugal/core';

/**
 * Choosing indices on the engine, for engines where the host would have to wait for the norms: weights w_i in as a tensor, a
 * {@link Selection} of tensors out, and nothing is read back. Weights are float32 here, and so are their sums: the probability
 * of an index is right to about n·6e-8 of 1. Where the sum is zero there is nothing to choose by, so all indices count alike;
 * where it is not finite, the product comes out as NaN. Indices are computed in float32, which holds them up to 2²⁴, and cast
 * last: the int32 arithmetic of TensorFlow for GPUs is done on the host.
 */

/** The largest float32. */
const HUGE = 3.4028234663852886e38;

/** Lowest uniforms are 0, highest 1 − 2⁻²⁴: float32 holds them exactly, so none is rounded up to 1. */
const GRID = 2 ** 24;

const float = (x: tf.Tensor): tf.Tensor => tf.cast(x, 'float32');
const int = (x: tf.Tensor): tf.Tensor1D => tf.cast(x, 'int32') as tf.Tensor1D;

const uniforms = (k: number, random: Stream): tf.Tensor1D =>
  tf.tensor1d(Float32Array.from({ length: k }, () => Math.floor(random.next() * GRID) / GRID));

/** How many of the last axis of x are at most v. */
const countUpTo = (x: tf.Tensor, v: tf.Tensor): tf.Tensor => tf.sum(float(tf.lessEqual(x, v)), -1);

/**
 * For each v the first index whose cumulative weight exceeds it, as float32. Searches blocks of about √n, then within one:
 * k·2√n comparisons in place of k·n, and the tensorflow engine has no kernel for `tf.searchSorted`.
 */
export function firstAbove(cumulative: tf.Tensor1D, v: tf.Tensor1D): tf.Tensor1D {
  const n = cumulative.size;
  const size = Math.ceil(Math.sqrt(n));
  const blocks = Math.floor(n / size) + 1;
  // Behind the last there is always something that exceeds every v, so a block and a place in it are always found.
  const grid = tf.reshape(tf.pad(cumulative, [[0, blocks * size - n]], Infinity), [blocks, size]);
  const column = tf.reshape(v, [-1, 1]);
  const ends = tf.reshape(tf.slice(grid, [0, size - 1], [blocks, 1]), [1, blocks]);
  const block = countUpTo(ends, column);
  const within = countUpTo(tf.gather(grid, int(block)), column);
  return tf.minimum(tf.add(tf.mul(block, size), within), n - 1);
}

/** Weights that can be drawn by: all 1 where the given ones add up to nothing, or to nothing finite. */
interface Drawable {
  readonly weights: tf.Tensor1D;
  /** 0, or NaN where the sum is not finite: added to scales, it lets that show. */
  readonly flaw: tf.Tensor;
}

function drawable(weights: tf.Tensor1D): Drawable {
  const total = tf.sum(weights);
  const usable = tf.logicalAnd(tf.greater(total, 0), tf.isFinite(total));
  return { weights: tf.where(usable, weights, 1), flaw: tf.mul(total, 0) };
}

/**
 * The k largest weights, unscaled, in no order; ties go to the lower index. Weights that are NaN or infinite are the largest, so
 * they show in the product.
 */
export function chooseTopOnDevice(weights: tf.Tensor1D, k: number): Selection {
  return tf.tidy(() => {
    const { indices } = tf.topk(tf.where(tf.less(weights, HUGE), weights, HUGE), k, false);
    return { size: k, indices: indices as tf.Tensor1D };
  });
}

/** k independent draws with replacement, p_i = w_i/S: each draw is an index of its own, with the scale S/(k·w_i). */
export function chooseDrawsOnDevice(weights: tf.Tensor1D, k: number, random: Stream): Selection {
  return tf.tidy(() => {
    const { weights: w, flaw } = drawable(weights);
    const cumulative = tf.cumsum<tf.Tensor1D>(w);
    const total = tf.slice(cumulative, w.size - 1, 1);
    const indices = int(firstAbove(cumulative, tf.mul<tf.Tensor1D>(uniforms(k, random), total)));
    // Rounding may let a weight of zero be drawn, which divNoNan lets count for nothing.
    const scales = tf.divNoNan(total, tf.mul(tf.gather(w, indices), k));
    return { size: k, indices, scales: tf.add<tf.Tensor1D>(scales, flaw) };
  });
}

/**
 * Winners and draws of WTA-CRS in k slots. With weights sorted ascending, slot r of 1 … k holds the one that k − r others
 * exceed. It wins if r·w ≥ the sum of it and all smaller ones, which is the water-filling of the inclusion probabilities; if one
 * slot wins, so do those behind it. The first d slots, which do not, are draws with replacement from all that does not win, whose
 * sum is R: scale R/(d·w_i). The winners have the scale 1.
 */
export function chooseWinnersOnDevice(weights: tf.Tensor1D, k: number, random: Stream): Selection {
  return tf.tidy(() => {
    const { weights: w, flaw } = drawable(weights);
    const before = w.size - k;
    const sorted = tf.topk(tf.neg(w), w.size, true);
    const ascending = tf.neg(sorted.values);
    // Summed from the small ones on: to subtract winners from the whole would cancel.
    const sums = tf.cumsum<tf.Tensor1D>(ascending);
    const ranks = tf.range(1, k + 1, 1, 'float32');
    const sumsOfSlots = tf.slice(sums, before, k);
    const loses = tf.less(tf.mul(ranks, tf.slice(ascending, before, k)), sumsOfSlots);
    const draws = tf.max(tf.mul(ranks, float(loses)));
    const drawn = tf.lessEqual(ranks, draws);
    const rest = tf.max(tf.mul(sumsOfSlots, float(drawn)));
    const found = firstAbove(sums, tf.mul<tf.Tensor1D>(uniforms(k, random), rest));
    const places = int(tf.where(drawn, found, tf.add(ranks, before - 1)));
    const scales = tf.divNoNan(rest, tf.mul(tf.gather(ascending, places), draws));
    return {
      size: k,
      indices: tf.gather(sorted.indices as tf.Tensor1D, places),
      scales: tf.add<tf.Tensor1D>(tf.where(drawn, scales, 1), flaw),
    };
  });
}
