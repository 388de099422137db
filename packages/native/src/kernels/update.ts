import type * as tf from '@tensorflow/tfjs';
import type { NativeBackend } from '../backend.js';
import { type Registry, sizeOf } from './kernel.js';

interface Targets {
  readonly values: Float32Array[];
  /** The new tensors; none when the old ones are updated in place. */
  readonly created: tf.TensorInfo[];
}

/** The arrays to be updated: those of the tensors themselves, or copies when any of them is shared with another tensor. */
function targetsOf(backend: NativeBackend, tensors: readonly tf.TensorInfo[]): Targets {
  if (tensors.every((tensor) => backend.isSole(tensor))) {
    return { values: tensors.map((tensor) => backend.writable(tensor)), created: [] };
  }
  const values = tensors.map((tensor) => {
    const from = backend.floats(tensor);
    const copy = backend.buffer(from.length);
    copy.set(from);
    return copy;
  });
  return { values, created: values.map((copy, i) => backend.tensor(copy, (tensors[i] as tf.TensorInfo).shape)) };
}

interface SgdInputs {
  readonly w: tf.TensorInfo;
  readonly g: tf.TensorInfo;
  readonly v?: tf.TensorInfo | null;
}

interface SgdAttrs {
  readonly learningRate: number;
  readonly momentum: number;
  readonly nesterov: boolean;
  readonly weightDecay: number;
  readonly coupledDecay: number;
}

interface AdamInputs {
  readonly w: tf.TensorInfo;
  readonly g: tf.TensorInfo;
  readonly m: tf.TensorInfo;
  readonly v: tf.TensorInfo;
}

interface AdamAttrs {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly gain: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  readonly correction1: number;
  readonly correction2: number;
}

const sameSizes = (...tensors: readonly tf.TensorInfo[]): boolean =>
  tensors.every((tensor) => sizeOf(tensor.shape) === sizeOf((tensors[0] as tf.TensorInfo).shape));

/** Optimizer updates. They change their inputs, and return nothing, where no other tensor shares the data. */
export function registerUpdate(registry: Registry): void {
  registry.custom<SgdInputs, SgdAttrs>('FrugalSgd', (backend, { w, g, v }, attrs) => {
    const state = v ?? undefined;
    if (!sameSizes(w, g, state ?? w)) return undefined;
    const { learningRate, momentum, nesterov, weightDecay, coupledDecay } = attrs;
    const entry = backend.data.peek(w.dataId);
    const { norms = null } = entry;
    const { values, created } = targetsOf(backend, state === undefined ? [w] : [w, state]);
    const [weights, velocity = null] = values as [Float32Array, Float32Array?];
    const pending = backend.data.find(g.dataId)?.pending;
    const byRows = pending !== undefined || norms !== null;
    const columns = byRows ? sizeOf(w.shape) / (w.shape[0] as number) : 0;
    const gradient = pending === undefined ? backend.floats(g) : backend.floats(pending.rows);
    const hyper = [learningRate, momentum, nesterov ? 1 : 0, weightDecay, coupledDecay] as const;
    backend.addon.sgd(weights, gradient, velocity, ...hyper, columns, pending?.indices ?? null, norms);
    if (norms !== null) {
      // Where the data were shared, the norms are now those of the copy.
      Reflect.deleteProperty(entry, 'norms');
      backend.data.peek((created[0] ?? w).dataId).norms = norms;
    }
    return created;
  });
  registry.custom<AdamInputs, AdamAttrs>('FrugalAdam', (backend, { w, g, m, v }, attrs) => {
    if (!sameSizes(w, g, m, v)) return undefined;
    const { values, created } = targetsOf(backend, [w, m, v]);
    const [weights, first, second] = values as [Float32Array, Float32Array, Float32Array];
    const { learningRate, beta1, beta2, gain, epsilon, weightDecay, correction1, correction2 } = attrs;
    backend.addon.adam(
      ...([weights, backend.floats(g), first, second] as const),
      ...([learningRate, beta1, beta2, gain, epsilon, weightDecay, correction1, correction2] as const),
    );
    return created;
  });
}
