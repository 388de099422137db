import type { Param, Site, Updates } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { FactorSizes } from './distribution.js';

/** A layer that is preconditioned: its weight, and under it its bias, as one matrix [a, g]. */
export interface Layer extends FactorSizes {
  /** Name of the weight. */
  readonly name: string;
  readonly site: Site;
  readonly kernel: Param;
  /** Absent where there is none, or where it is not trained. */
  readonly bias?: Param;
}

/** A weight whose updates pass as they are, and why. */
export interface PassedThrough {
  /** Name of the weight. */
  readonly weight: string;
  /** Why. */
  readonly reason: string;
}

/** Which sites have factors. */
export interface Coverage {
  readonly skip: (site: Site) => boolean;
  readonly largest: number;
}

/** Sizes of a site's factors, the row of ones for a bias included. */
export function sizesOf({ kernel, bias }: Pick<Site, 'kernel' | 'bias'>): FactorSizes {
  const g = kernel.shape.at(-1) as number;
  return { a: kernel.size / g + (bias ? 1 : 0), g };
}

/** Why a site is left alone; undefined if it is not. */
export function refusal(site: Site, { skip, largest }: Coverage): string | undefined {
  const { a, g } = sizesOf(site);
  if (skip(site)) return 'skipped';
  return Math.max(a, g) > largest ? `its factors [${a}] and [${g}] are larger than ${largest}` : undefined;
}

/** The layers to precondition, and what passes through. */
export function layersOf(
  params: readonly Param[],
  coverage: Coverage,
): { layers: Layer[]; passed: readonly PassedThrough[] } {
  const layers: Layer[] = [];
  const passed: PassedThrough[] = [];
  const covered = new Set<string>();
  for (const kernel of params) {
    const { site, name, value } = kernel;
    if (site?.kernel !== value || refusal(site, coverage) !== undefined) continue;
    const bias = params.find((param) => param.value === site.bias);
    const { a, g } = sizesOf({ kernel: value, ...(bias && { bias: bias.value }) });
    layers.push({ name, site, kernel, ...(bias && { bias }), a, g });
    for (const param of [kernel, bias]) if (param) covered.add(param.name);
  }
  for (const { name, site } of params) {
    if (covered.has(name)) continue;
    passed.push({
      weight: name,
      reason:
        (site && (refusal(site, coverage) ?? 'its kernel is not trained')) ??
        'no product of a dense or convolution layer',
    });
  }
  return { layers, passed };
}

/** ∇ [a, g] of a layer; undefined where the step has none. */
export function gradientOf({ kernel, bias, g }: Layer, updates: Updates): tf.Tensor2D | undefined {
  const update = updates.get(kernel.name);
  if (!update) return undefined;
  const matrix = tf.reshape(update, [-1, g]) as tf.Tensor2D;
  if (!bias) return matrix;
  const row = updates.get(bias.name) ?? tf.zeros([g]);
  return tf.concat([matrix, tf.reshape(row, [1, g]) as tf.Tensor2D], 0);
}

/** A matrix [a, g] as updates of the layer's weights. */
export function* updatesOf({ kernel, bias, a, g }: Layer, matrix: tf.Tensor2D): Generator<[string, tf.Tensor]> {
  const rows = bias ? a - 1 : a;
  yield [kernel.name, tf.reshape(bias ? tf.slice(matrix, [0, 0], [rows, g]) : matrix, kernel.value.shape)];
  if (bias) yield [bias.name, tf.reshape(tf.slice(matrix, [rows, 0], [1, g]), bias.value.shape)];
}
