import type * as tf from '@tensorflow/tfjs';
import type { RunContext } from './opened.js';

type Weights = Pick<RunContext, 'params' | 'statistics'>;

/** Gives the model these values, by weight name, for good. */
export function settle({ params, statistics }: Weights, settled: ReadonlyMap<string, tf.Tensor>): void {
  for (const { name, value } of [...params, ...statistics]) {
    const to = settled.get(name);
    if (to) value.assign(to);
  }
}

/** Runs `body` while the model has these values; its own weights come back, to the bit. */
export async function whileSettled<R>(
  weights: Weights,
  settled: ReadonlyMap<string, tf.Tensor>,
  body: () => Promise<R>,
): Promise<R> {
  if (settled.size === 0) return body();
  const all = [...weights.params, ...weights.statistics].filter(({ name }) => settled.has(name));
  const own = all.map(({ value }) => value.clone());
  try {
    settle(weights, settled);
    return await body();
  } finally {
    all.forEach(({ value }, i) => value.assign(own[i] as tf.Tensor));
    for (const tensor of own) tensor.dispose();
  }
}
