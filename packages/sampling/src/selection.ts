import { type HostSelection, selectionOf, type Stream } from '@frugal/core';

/**
 * Choosing indices of a contracted axis on the host. All functions are pure: weights w_i = |A_i|·|B_i| in, a selection out.
 * The estimate of C = Σ A_i B_i is Σ scale_i A_i B_i over the chosen i.
 */

/**
 * How many of `n` to keep: min(max(⌊n·keep⌋, minK), n), as Adelman et al. do. The 1e-9 undoes rounding, as in
 * 100·0.29 = 28.999…
 */
export function keepCount(n: number, keep: number, minK: number): number {
  return Math.min(Math.max(Math.floor(n * keep + 1e-9), minK), n);
}

/** Sum of the values. */
export function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i] as number;
  return total;
}

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
export function chooseTop(weights: ArrayLike<number>, k: number): HostSelection {
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
  return selectionOf(indices.subarray(0, count));
}

/** Probabilities of one draw of column-row sampling: p_i = w_i / Σ w, which minimises the variance. */
export function drawProbabilities(weights: ArrayLike<number>): Float64Array {
  const total = sum(weights);
  return Float64Array.from(weights, (w) => w / total);
}

/** How often each index comes up in `draws` draws with replacement, with probabilities in proportion to `weights`. */
function drawCounts(weights: ArrayLike<number>, draws: number, random: Stream): Map<number, number> {
  let total = 0;
  const cumulative = Float64Array.from(weights, (w) => {
    total += w;
    return total;
  });
  const counts = new Map<number, number>();
  for (let draw = 0; draw < draws; draw++) {
    const index = firstAbove(cumulative, random.next() * total);
    counts.set(index, (counts.get(index) ?? 0) + 1);
  }
  return counts;
}

/** First index whose cumulative weight exceeds u; its own weight is positive. */
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

const ascending = (indices: Iterable<number>): Int32Array => Int32Array.from(indices).sort();

/** k independent draws with replacement; an index drawn c times gets the scale c/(k·p_i). */
export function chooseDraws(probabilities: Float64Array, k: number, random: Stream): HostSelection {
  const counts = drawCounts(probabilities, k, random);
  const indices = ascending(counts.keys());
  const scale = (i: number): number => (counts.get(i) as number) / (k * (probabilities[i] as number));
  return selectionOf(indices, Float32Array.from(indices, scale));
}

/**
 * Inclusion probabilities p_i = min(1, w_i/c) with Σ p_i = k, which minimise the variance of Bernoulli sampling. Exact
 * water-filling: what would exceed 1 is set to 1, the rest share what is left, until none exceeds. Zero weights get 0;
 * with fewer than k positive weights all of them get 1.
 */
export function inclusionProbabilities(weights: ArrayLike<number>, k: number): Float64Array {
  const probabilities = new Float64Array(weights.length);
  // Summed anew in each round: subtracting what became certain would cancel.
  for (let certain = -1, next = 0; next > certain; ) {
    certain = next;
    let rest = 0;
    probabilities.forEach((p, i) => {
      if (p < 1) rest += weights[i] as number;
    });
    const share = rest > 0 ? (k - certain) / rest : 0;
    probabilities.forEach((p, i) => {
      if (p < 1) probabilities[i] = Math.min(1, (weights[i] as number) * share);
      if (p < 1 && probabilities[i] === 1) next++;
    });
  }
  return probabilities;
}

/**
 * Each index is kept with its probability and gets the scale 1/p_i. The number kept varies. Where it would be none, index 0
 * is kept with the scale 0, so that the product is zero, as unbiasedness asks, and has its shape.
 */
export function chooseBernoulli(probabilities: Float64Array, random: Stream): HostSelection {
  const chosen: number[] = [];
  probabilities.forEach((p, i) => {
    if (p >= 1 || random.next() < p) chosen.push(i);
  });
  if (chosen.length === 0) return selectionOf(Int32Array.of(0), Float32Array.of(0));
  const indices = Int32Array.from(chosen);
  return selectionOf(
    indices,
    Float32Array.from(indices, (i) => 1 / (probabilities[i] as number)),
  );
}

/**
 * The c indices of inclusion probability 1, and k − c draws with replacement from the others: an index drawn m times gets
 * the scale m/p_i. With {@link inclusionProbabilities}, Σ p_i = k, these are the winners of WTA-CRS.
 */
export function chooseWinners(probabilities: Float64Array, k: number, random: Stream): HostSelection {
  const others = probabilities.map((p) => (p < 1 ? p : 0));
  const winners = [...probabilities.keys()].filter((i) => (probabilities[i] as number) >= 1);
  const draws = others.some((p) => p > 0) ? k - winners.length : 0;
  const counts = drawCounts(others, draws, random);
  const indices = ascending([...winners, ...counts.keys()]);
  const scale = (i: number): number => (counts.get(i) ?? 1) / (probabilities[i] as number);
  return selectionOf(indices, Float32Array.from(indices, scale));
}

/** k of n without replacement, all equally likely, scale n/k (Floyd's algorithm). */
export function chooseUniform(n: number, k: number, random: Stream): HostSelection {
  const chosen = new Set<number>();
  for (let j = n - k; j < n; j++) {
    const candidate = random.below(j + 1);
    chosen.add(chosen.has(candidate) ? j : candidate);
  }
  return selectionOf(ascending(chosen), new Float32Array(k).fill(n / k));
}
