import { type Param, readInto, tensorOf, type Updates, type WeightedSum } from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';

/** The values of some weights' tensors one after the other, in one array that is used again in each step. */
export interface Bucket {
  /** The weights, in the order of their values. */
  readonly params: readonly Param[];
  /**
   * Copies the tensors of these weights here, times `factor`, and returns the part of the array that they fill. A tensor
   * has the shape of its weight or a smaller one; a weight without a tensor counts as zeros, as does all of it times 0.
   */
  pack(updates: Updates, factor?: number): Promise<Float32Array>;
  /** The values as tensors of the shapes that were packed last. They are copies: the array is free for the next step. */
  unpack(): Map<string, tf.Tensor>;
}

/** into ← factor · source. What is not finite times 0 is 0 here: a rank without examples has no say. */
async function scaleInto(
  into: Float32Array,
  source: tf.Tensor | undefined,
  factor: number,
  sum: WeightedSum,
): Promise<void> {
  if (!source || factor === 0) return void into.fill(0);
  await readInto(into, source);
  if (factor !== 1) sum(into, [factor], [into]);
}

function openBucket(params: readonly Param[], sum: WeightedSum): Bucket {
  const memory = new Float32Array(params.reduce((sum, { value }) => sum + value.size, 0));
  let packed: { readonly name: string; readonly shape: number[]; readonly values: Float32Array }[] = [];
  return {
    params,
    async pack(updates, factor = 1) {
      let end = 0;
      packed = params.map(({ name, value }) => {
        const { shape, size } = updates.get(name) ?? value;
        const values = memory.subarray(end, end + size);
        end += size;
        return { name, shape, values };
      });
      // All at once: where tensors live on a device, their copies overlap.
      await Promise.all(packed.map(({ name, values }) => scaleInto(values, updates.get(name), factor, sum)));
      return memory.subarray(0, end);
    },
    unpack: () => new Map(packed.map(({ name, shape, values }) => [name, tensorOf(values, shape)])),
  };
}

/**
 * Buckets for these weights, the last layer first, as its gradient is the first that back-propagation has. A bucket holds
 * at most `bytes` of float32 values; a weight that is larger has a bucket of its own. Their memory is made here: as much
 * as the weights have.
 *
 * @param sum - what scales values
 */
export function openBuckets(params: readonly Param[], bytes: number, sum: WeightedSum): Bucket[] {
  const groups: Param[][] = [];
  let room = 0;
  for (const param of params.toReversed()) {
    const size = 4 * param.value.size;
    if (groups.length === 0 || size > room) {
      groups.push([]);
      room = bytes;
    }
    groups.at(-1)?.push(param);
    room -= size;
  }
  return groups.map((group) => openBucket(group, sum));
}
