import type { CopyingBackend } from '@frugal/native';
import * as tf from '@tensorflow/tfjs';
import { FrugalError } from './errors.js';

/** The active backend, if it copies by itself. */
function copying(): CopyingBackend | undefined {
  const backend = tf.backend() as Partial<CopyingBackend>;
  return backend.copyInto && backend.copyOf ? (backend as CopyingBackend) : undefined;
}

/**
 * into ← the values of a float32 tensor, which has as many. What `data()` gives may be the engine's own buffer, which it
 * can then never use again: on the native engine a large tensor that is read in each step costs new pages in each step. This
 * only copies.
 *
 * @throws {@link FrugalError} `SHAPE` for an array of another length
 */
export async function readInto(into: Float32Array, tensor: tf.Tensor): Promise<void> {
  if (tensor.size !== into.length)
    throw new FrugalError(
      'SHAPE',
      `readInto: expected an array of ${tensor.size} numbers, as the tensor has, but received ${into.length}. Cut it by subarray().`,
    );
  const backend = copying();
  if (backend) backend.copyInto(tensor, into);
  else into.set(await tensor.data<'float32'>());
}

/**
 * A float32 tensor of a copy of `values`, which stay the caller's; on the native engine in a buffer that is used again.
 *
 * @throws {@link FrugalError} `SHAPE` where the values do not fill the shape
 */
export function tensorOf(values: Float32Array, shape: readonly number[]): tf.Tensor {
  if (values.length !== tf.util.sizeFromShape([...shape]))
    throw new FrugalError(
      'SHAPE',
      `tensorOf: expected values for the shape [${shape.join(', ')}] but received ${values.length}. Pass as many.`,
    );
  const backend = copying();
  if (!backend) return tf.tensor(values.slice(), [...shape], 'float32');
  return tf.engine().makeTensorFromTensorInfo(backend.copyOf(values, shape));
}
