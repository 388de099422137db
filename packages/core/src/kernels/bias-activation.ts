import * as tf from '@tensorflow/tfjs';
import { type Composite, leading, registerGradientOnce, runKernel, runOne } from './run.js';

/** Activations that are fused with the addition of a bias. */
export type FusedActivation = 'linear' | 'relu';

interface Attrs {
  readonly activation: FusedActivation;
}

const forward: Composite = {
  name: 'FrugalBiasActivation',
  compute: ({ x, bias }: Record<string, tf.Tensor>, { activation }: Attrs) => {
    const sum = tf.add(x as tf.Tensor, bias as tf.Tensor);
    return activation === 'relu' ? tf.relu(sum) : sum;
  },
};

const gradient: Composite = {
  name: 'FrugalReluBiasGrad',
  compute: ({ dy, y }: Record<string, tf.Tensor>) => {
    const dx = tf.mul(dy as tf.Tensor, tf.step(y as tf.Tensor));
    return [dx, tf.sum(dx, leading(dx))];
  },
};

/** The composites of this file. */
export const biasActivationComposites = [forward, gradient];

/** Registers the gradient of `FrugalBiasActivation`. */
export function registerBiasActivationGradient(): void {
  registerGradientOnce({
    kernelName: forward.name,
    outputsToSave: [true],
    gradFunc: (dy, saved, attrs) => {
      const d = dy as tf.Tensor;
      if ((attrs as unknown as Attrs).activation === 'linear') {
        return { x: () => d.clone(), bias: () => tf.sum(d, leading(d)) };
      }
      // Not in a thunk: both gradients come from one pass, and a thunk's other results would be tidied away.
      const [dx, db] = runKernel(gradient.name, { dy: d, y: saved[0] as tf.Tensor });
      return { x: () => dx as tf.Tensor, bias: () => db as tf.Tensor };
    },
  });
}

/** y = activation(x + bias), the bias over the last axis, in one pass. */
export function biasActivation(x: tf.Tensor, bias: tf.Tensor, activation: FusedActivation): tf.Tensor {
  return runOne(forward.name, { x, bias }, { activation });
}
