import * as tf from '@tensorflow/tfjs';

/** Runs a kernel of the active backend on tensors. */
export const runKernel = (
  name: string,
  inputs: Record<string, tf.Tensor>,
  attrs: object = {},
): tf.Tensor | tf.Tensor[] =>
  tf.engine().runKernel(name, inputs as unknown as tf.NamedTensorMap, attrs as tf.NamedAttrMap);

/** The values of what `body` computes on `backend`, which stays active only for the call. */
export async function valuesOn(backend: string, body: () => tf.Tensor | tf.Tensor[]): Promise<Float32Array[]> {
  await tf.setBackend(backend);
  const out = tf.tidy(() => {
    const result = body();
    return Array.isArray(result) ? result : [result];
  });
  const values = out.map((t) => Float32Array.from(t.dataSync()));
  tf.dispose(out);
  return values;
}

/** max|a - b| / max|b|, and Infinity where the sizes differ or a value is not finite. */
export function relativeError(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Infinity;
  let worst = 0;
  let scale = 1e-30;
  for (let i = 0; i < b.length; i++) {
    const gap = Math.abs((a[i] as number) - (b[i] as number));
    if (Number.isNaN(gap)) return Infinity;
    worst = Math.max(worst, gap);
    scale = Math.max(scale, Math.abs(b[i] as number));
  }
  return worst / scale;
}

/** The largest relative error of `body` on the engine against 'cpu'. */
export async function against(body: () => tf.Tensor | tf.Tensor[], reference = body): Promise<number> {
  const expected = await valuesOn('cpu', reference);
  const received = await valuesOn('portable', body);
  if (expected.length !== received.length) return Infinity;
  return Math.max(...expected.map((values, i) => relativeError(received[i] as Float32Array, values)));
}

/** A seeded normal tensor: the same on every backend. */
export const normal = (shape: number[], seed: number): tf.Tensor => tf.randomNormal(shape, 0, 1, 'float32', seed);
