import type * as tf from '@tensorflow/tfjs';
import { UNARY } from '../addon.js';
import type { NativeBackend } from '../backend.js';
import { isFloat, type Registry, sameShape, sizeOf, type Two } from './kernel.js';

/** Activations that are applied to a product by a loop of its own; relu is part of the product. */
const LATER_ACTIVATIONS: Readonly<Record<string, number>> = {
  elu: UNARY.elu,
  relu6: UNARY.relu6,
  sigmoid: UNARY.sigmoid,
  leakyrelu: UNARY.leakyRelu,
};

/** Attributes of an activation that follows a product. */
export interface ActivationAttrs {
  readonly activation?: string;
  readonly leakyreluAlpha?: number;
}

/** Whether `activate` knows the activation. */
export function knowsActivation(activation = 'linear'): boolean {
  return activation === 'linear' || activation === 'relu' || activation in LATER_ACTIVATIONS;
}

/** Applies what the product itself has not, in place. */
export function activate(backend: NativeBackend, values: Float32Array, attrs: ActivationAttrs): void {
  const op = LATER_ACTIVATIONS[attrs.activation ?? 'linear'];
  // 0.2 is TensorFlow.js's default slope.
  if (op !== undefined) backend.addon.unary(op, values, values, attrs.leakyreluAlpha ?? 0.2, 0);
}

interface MatMulAttrs extends ActivationAttrs {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

/** a·b over the last two axes; the batches of a and b are equal, or one of them is 1. */
function matMul(
  backend: NativeBackend,
  { a, b }: Two,
  bias: tf.TensorInfo | undefined,
  attrs: MatMulAttrs,
): tf.TensorInfo | undefined {
  if (!isFloat(a) || !isFloat(b)) return undefined;
  const { transposeA, transposeB } = attrs;
  const rankA = a.shape.length;
  const rankB = b.shape.length;
  let rows = a.shape[transposeA ? rankA - 1 : rankA - 2] as number;
  const depth = a.shape[transposeA ? rankA - 2 : rankA - 1] as number;
  const columns = b.shape[transposeB ? rankB - 2 : rankB - 1] as number;
  if (depth !== b.shape[transposeB ? rankB - 1 : rankB - 2]) return undefined;
  const outerA = a.shape.slice(0, -2);
  const outerB = b.shape.slice(0, -2);
  let batchA = sizeOf(outerA);
  const batchB = sizeOf(outerB);
  if (!sameShape(outerA, outerB) && batchA !== 1 && batchB !== 1) return undefined;
  const outer = batchA > batchB || (batchA === batchB && rankA >= rankB) ? outerA : outerB;
  if (rankA !== rankB && outer.length < Math.max(rankA, rankB) - 2) return undefined;
  const size = sizeOf(outer) * rows * columns;
  if (size === 0 || depth === 0) return undefined;
  if (bias !== undefined && (!isFloat(bias) || bias.shape.at(-1) !== columns || sizeOf(bias.shape) !== columns)) {
    return undefined;
  }
  const shape = [...outer, rows, columns];
  if (batchB === 1 && batchA > 1 && !transposeA) {
    // One product with all the rows is faster than a batch of products.
    rows *= batchA;
    batchA = 1;
  }
  const y = backend.buffer(size);
  const relu = attrs.activation === 'relu' ? 1 : 0;
  const [left, right] = [backend.floats(a), backend.floats(b)];
  const added = bias === undefined ? null : backend.floats(bias);
  const [ta, tb] = [transposeA ? 1 : 0, transposeB ? 1 : 0];
  backend.addon.matMul(left, right, added, y, batchA, batchB, rows, columns, depth, ta, tb, relu);
  activate(backend, y, attrs);
  return backend.tensor(y, shape);
}

/** Matrix products. */
export function registerMatMul(registry: Registry): void {
  registry.override<Two, MatMulAttrs>('BatchMatMul', (backend, inputs, { transposeA, transposeB }) =>
    matMul(backend, inputs, undefined, { transposeA, transposeB }),
  );
  type FusedInputs = Two & { bias?: tf.TensorInfo | null; preluActivationWeights?: tf.TensorInfo | null };
  registry.override<FusedInputs, MatMulAttrs>('_FusedMatMul', (backend, inputs, attrs) =>
    knowsActivation(attrs.activation) ? matMul(backend, inputs, inputs.bias ?? undefined, attrs) : undefined,
  );
}
