import type * as tf from '@tensorflow/tfjs';
import type { NativeBackend } from '../backend.js';
import { isFloat, type Registry, sizeOf } from './kernel.js';

/** The activations of Frugal's fused kernels. */
export type Activation = 'linear' | 'relu';

interface BatchNormInputs {
  readonly x: tf.TensorInfo;
  readonly gamma: tf.TensorInfo;
  readonly beta: tf.TensorInfo;
  readonly residual?: tf.TensorInfo | null;
}

type BatchNormAttrs = { readonly epsilon: number; readonly activation: Activation };

/** Batch normalisation with the moments of the batch. */
function batchNorm(
  backend: NativeBackend,
  { x, gamma, beta, residual }: BatchNormInputs,
  { epsilon, activation }: BatchNormAttrs,
): tf.TensorInfo[] | undefined {
  const channels = x.shape.at(-1) ?? 0;
  if (sizeOf(gamma.shape) !== channels || sizeOf(beta.shape) !== channels) return undefined;
  const from = backend.floats(x);
  const added = residual === undefined || residual === null ? null : backend.floats(residual);
  if (added !== null && added.length !== from.length) return undefined;
  const y = backend.buffer(from.length);
  const [mean, variance, invStd] = [backend.buffer(channels), backend.buffer(channels), backend.buffer(channels)];
  const relu = activation === 'relu' ? 1 : 0;
  const [scale, shift] = [backend.floats(gamma), backend.floats(beta)];
  backend.addon.batchNorm(from, scale, shift, added, y, mean, variance, invStd, epsilon, relu);
  return [
    backend.tensor(y, x.shape),
    backend.tensor(mean, [channels]),
    backend.tensor(variance, [channels]),
    backend.tensor(invStd, [channels]),
  ];
}

interface BatchNormGradInputs {
  readonly dy: tf.TensorInfo;
  readonly x: tf.TensorInfo;
  readonly y: tf.TensorInfo;
  readonly gamma: tf.TensorInfo;
  readonly mean: tf.TensorInfo;
  readonly invStd: tf.TensorInfo;
  /** Where given, and there is no residual, relu is told from x again and y is not read. */
  readonly beta?: tf.TensorInfo | null;
}

type BatchNormGradAttrs = { readonly activation: Activation; readonly residual: boolean };

function batchNormGrad(
  backend: NativeBackend,
  inputs: BatchNormGradInputs,
  { activation, residual }: BatchNormGradAttrs,
): tf.TensorInfo[] | undefined {
  const { x } = inputs;
  const channels = x.shape.at(-1) ?? 0;
  if (sizeOf(inputs.gamma.shape) !== channels || sizeOf(inputs.dy.shape) !== sizeOf(x.shape)) return undefined;
  const from = backend.floats(x);
  const dx = backend.buffer(from.length);
  const [dgamma, dbeta] = [backend.buffer(channels), backend.buffer(channels)];
  const dresidual = residual ? backend.buffer(from.length) : null;
  backend.addon.batchNormGrad(
    backend.floats(inputs.dy),
    from,
    activation === 'relu' ? backend.floats(inputs.y) : null,
    backend.floats(inputs.gamma),
    backend.floats(inputs.mean),
    backend.floats(inputs.invStd),
    dx,
    dgamma,
    dbeta,
    dresidual,
    inputs.beta ? backend.floats(inputs.beta) : null,
  );
  const gradients = [
    backend.tensor(dx, x.shape),
    backend.tensor(dgamma, [channels]),
    backend.tensor(dbeta, [channels]),
  ];
  if (dresidual !== null) gradients.push(backend.tensor(dresidual, x.shape));
  return gradients;
}

interface InferenceInputs {
  readonly x: tf.TensorInfo;
  readonly mean: tf.TensorInfo;
  readonly variance: tf.TensorInfo;
  readonly scale?: tf.TensorInfo | null;
  readonly offset?: tf.TensorInfo | null;
}

/** Batch normalisation with given moments, all of them over the last axis. */
function inference(
  backend: NativeBackend,
  { x, mean, variance, scale, offset }: InferenceInputs,
  { varianceEpsilon }: { varianceEpsilon: number },
): tf.TensorInfo | undefined {
  const channels = x.shape.at(-1) ?? 0;
  const over = (t: tf.TensorInfo): boolean => isFloat(t) && sizeOf(t.shape) === channels && t.shape.at(-1) === channels;
  if (!isFloat(x) || sizeOf(x.shape) === 0 || !over(mean) || !over(variance)) return undefined;
  const optional = (t: tf.TensorInfo | null | undefined): Float32Array | null | undefined => {
    if (t === undefined || t === null) return null;
    return over(t) ? backend.floats(t) : undefined;
  };
  const [gamma, beta] = [optional(scale), optional(offset)];
  if (gamma === undefined || beta === undefined) return undefined;
  const from = backend.floats(x);
  const y = backend.buffer(from.length);
  const [center, spread] = [backend.floats(mean), backend.floats(variance)];
  backend.addon.batchNormInference(from, center, spread, gamma, beta, y, varianceEpsilon);
  return backend.tensor(y, x.shape);
}

/** Batch normalisation, in training and in inference. */
export function registerNorm(registry: Registry): void {
  registry.override<InferenceInputs, { varianceEpsilon: number }>('FusedBatchNorm', inference);
  registry.custom<BatchNormInputs, BatchNormAttrs>('FrugalBatchNorm', batchNorm);
  registry.custom<BatchNormGradInputs, BatchNormGradAttrs>('FrugalBatchNormGrad', batchNormGrad);
}
