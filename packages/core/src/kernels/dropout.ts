import * as tf from '@tensorflow/tfjs';
import { type Composite, registerGradientOnce, runOne } from './run.js';

interface Attrs {
  readonly rate: number;
  readonly seed: number;
}

/** A hash of (seed, index) to 32 bits (lowbias32 by C. Wellons), so that no mask has to be stored or sent. */
function hash(index: number, seed: number): number {
  let h = (Math.imul(index, 0x9e3779b1) + seed) >>> 0;
  h ^= h >>> 16;
  h = Math.imul(h, 0x7feb352d);
  h ^= h >>> 15;
  h = Math.imul(h, 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}

const dropoutKernel: Composite = {
  name: 'FrugalDropout',
  compute: ({ x }: Record<string, tf.Tensor>, { rate, seed }: Attrs) => {
    const t = x as tf.Tensor;
    const threshold = rate * 2 ** 32;
    const gain = Math.fround(1 / (1 - rate));
    const mask = Float32Array.from({ length: t.size }, (_, i) => (hash(i, seed) >= threshold ? gain : 0));
    return tf.mul(t, tf.tensor(mask, t.shape, 'float32'));
  },
};

/** The composites of this file. */
export const dropoutComposites = [dropoutKernel];

/** Registers the gradient of `FrugalDropout`: the same mask, made again from the seed. */
export function registerDropoutGradient(): void {
  registerGradientOnce({
    kernelName: dropoutKernel.name,
    gradFunc: (dy, _saved, attrs) => ({ x: () => runOne(dropoutKernel.name, { x: dy as tf.Tensor }, attrs as object) }),
  });
}

/** Each element is 0 with probability `rate`, else times 1/(1 − rate); the same seed gives the same elements on every engine. */
export function dropout(x: tf.Tensor, rate: number, seed: number): tf.Tensor {
  return runOne(dropoutKernel.name, { x }, { rate, seed });
}
