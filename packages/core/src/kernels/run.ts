import * as tf from '@tensorflow/tfjs';

/** Runs a kernel by name on the active backend. */
export function runKernel(name: string, inputs: Record<string, tf.Tensor>, attrs: object = {}): tf.Tensor[] {
  const result = tf.engine().runKernel(name, inputs as unknown as tf.NamedTensorMap, attrs as tf.NamedAttrMap) as
    | tf.Tensor
    | tf.Tensor[];
  return Array.isArray(result) ? result : [result];
}

/** Runs a kernel of one output. */
export function runOne(name: string, inputs: Record<string, tf.Tensor>, attrs: object = {}): tf.Tensor {
  return runKernel(name, inputs, attrs)[0] as tf.Tensor;
}

/** All axes of a tensor but the last: what a sum per channel runs over. */
export function leading(tensor: tf.Tensor): number[] {
  return Array.from({ length: tensor.rank - 1 }, (_, axis) => axis);
}

/** A kernel written with the operations of TensorFlow.js, for backends that have no kernel of their own. */
export interface Composite {
  /** Name of the kernel. */
  readonly name: string;
  /** What it computes. Runs inside `tf.tidy`. */
  readonly compute: (inputs: Record<string, tf.Tensor>, attrs: never) => tf.Tensor | tf.Tensor[];
}

/** Registers a composite for a backend, unless the backend has its own kernel of that name. */
export function registerComposite({ name, compute }: Composite, backendName: string): void {
  if (tf.getKernel(name, backendName) !== undefined) return;
  tf.registerKernel({
    kernelName: name,
    backendName,
    kernelFunc: ({ inputs, attrs }) =>
      tf.tidy(() => compute(inputs as Record<string, tf.Tensor>, attrs as never)) as unknown as tf.TensorInfo,
  });
}

/** Registers a gradient once: registries outlive a reload of this module. */
export function registerGradientOnce(config: tf.GradConfig): void {
  if (tf.getGradient(config.kernelName) === undefined) tf.registerGradient(config);
}
