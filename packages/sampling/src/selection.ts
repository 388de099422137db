import type { Selection, Stream } from '@frugal/core';

/**
 * Choosing indices of a contracted axis. All functions are pure: weights w_i = |A_i|·|B_i| in, a {@link Selection} out.
 * The estimate of C = Σ A_i B_i is Σ scale_i A_i B_i over the chosen i.
 */

/** How many of `n` to keep: min(max(⌊n·keep⌋, minK), n), as Adelman et al. do. */
export function keepCount(n: number, keep: number, minK: number): number {
  return Math.min(Math.max(Math.floor(n * keep), minK), n);
}

const total = (weights: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) sum += weights[i] as number;
  return sum;
};

/** The k-th largest value of `values` (1 ≤ k ≤ length), by Hoare's selection on a copy. */
function kthLargest(values: ArrayLike<number>, k: number): number {
  const v = Float64Array.from(values);
  let low = 0;
  let high = v.length - 1;
  const target = k - 1;
  while (low < high) {
    const pivot = v[(low + high) >> 1] as number;
    let i = low;
    let j = high;
    while (i <= j) {
      while ((v[i] as number) > pivot) i++;
      while ((v[j] as number) < pivot) j--;
      if (i > j) break;
      [v[i], v[j]] = [v[j] as number, v[i] as number];
      i++;
      j--;
    }
    if (target <= j) high = j;
    else if (target >= i) low = i;
    else break;
  }
  return v[target] as number;
}

/** The k largest weights, unscaled; ties go to the lower index, so every machine chooses alike. */
export function chooseTop(weights: ArrayLike<number>, k: number): Selection {
  const threshold = kthLargest(weights, k);
  const indices = new Int32Array(k);
  let above = 0;
  for (let i = 0; i < weights.length; i++) if ((weights[i] as number) > threshold) above++;
  let ties = k - above;
  let count = 0;
  for (let i = 0; i < weights.length && count < k; i++) {
    const w = weights[i] as number;
    if (w > threshold || (w === threshold && ties-- > 0)) indices[count++] = i;
  }
  return { indices: indices.subarray(0, count) };
}

/** Probabilities of one draw of column-row sampling: p_i = w_i / Σ w, which minimises the variance. */
export function drawProbabilities(weights: ArrayLike<number>): Float64Array {
  const sum = total(weights);
  return Float64Array.from(weights, (w) => w / sum);
}

/** k independent draws with replacement; an index drawn c times gets the scale c/(k·p_i). */
export function chooseDraws(probabilities: Float64Array, k: number, random: Stream): Selection {
  const cumulative = new Float64Array(probabilities.length);
  let sum = 0;
  probabilities.forEach((p, i) => {
    sum += p;
    cumulative[i] = sum;
  });
  const counts = new Map<number, number>();
  for (let draw = 0; draw < k; draw++) {
    const index = firstAbove(cumulative, random.next() * sum);
    counts.set(index, (counts.get(index) ?? 0) + 1);
  }
  const indices = Int32Array.from([...counts.keys()].sort((a, b) => a - b));
  const scales = Float32Array.from(indices, (i) => (counts.get(i) as number) / (k * (probabilities[i] as number)));
  return { indices, scales };
}

/** First index whose cumulative probability exceeds u; its own probability is positive. */
function firstAbove(cumulative: Float64Array, u: number): number {
  let low = 0;
  let high = cumulative.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((cumulative[middle] as number) > u) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * Inclusion probabilities of Bernoulli sampling: p_i = min(1, w_i/c) with Σ p_i = k, which minimises the variance. Exact
 * water-filling: weights that would exceed 1 are set to 1, the rest share what is left, until none exceeds. Zero weights
 * get 0; with fewer than k positive weights all of them get 1.
 */
export function inclusionProbabilities(weights: ArrayLike<number>, k: number): Float64Array {
  const order = Array.from({ length: weights.length }, (_, i) => i).sort(
    (a, b) => (weights[b] as number) - (weights[a] as number),
  );
  let rest = total(weights);
  let certain = 0;
  while (certain < k && certain < order.length) {
    const w = weights[order[certain] as number] as number;
    if (w === 0 || (k - certain) * w < rest) break;
    rest -= w;
    certain++;
  }
  const probabilities = new Float64Array(weights.length);
  const share = rest > 0 ? (k - certain) / rest : 0;
  order.forEach((index, rank) => {
    const w = weights[index] as number;
    probabilities[index] = rank < certain ? 1 : Math.min(1, w * share);
  });
  return probabilities;
}

/** Each index is kept with its probability and gets the scale 1/p_i. The number kept varies; it may be none. */
export function chooseBernoulli(probabilities: Float64Array, random: Stream): Selection {
  const chosen: number[] = [];
  probabilities.forEach((p, i) => {
    if (p >= 1 || random.next() < p) chosen.push(i);
  });
  const indices = Int32Array.from(chosen);
  return { indices, scales: Float32Array.from(indices, (i) => 1 / (probabilities[i] as number)) };
}

/** k of n without replacement, all equally likely, scale n/k (Floyd's algorithm). */
export function chooseUniform(n: number, k: number, random: Stream): Selection {
  const chosen = new Set<number>();
  for (let j = n - k; j < n; j++) {
    const candidate = random.below(j + 1);
    chosen.add(chosen.has(candidate) ? j : candidate);
  }
  const indices = Int32Array.from([...chosen].sort((a, b) => a - b));
  return { indices, scales: new Float32Array(k).fill(n / k) };
}
