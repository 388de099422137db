import * as tf from '@tensorflow/tfjs';
import { type Composite, registerGradientOnce, runOne } from './kernels/run.js';
import type { Call, Observer, Rule } from './rule.js';

/** What the product kernel needs to know; travels in its attributes, which TensorFlow.js hands on untouched. */
export interface Bridge {
  /** The evaluation. */
  readonly call: Call;
  /** The rule of the site, if one acts there. */
  readonly rule: Rule | undefined;
  /** Who looks. */
  readonly observers: readonly Observer[];
}

/** The product of a site as a kernel: Y = X·W, or what the rule puts in its place. */
export const linearComposite: Composite = {
  name: 'FrugalLinear',
  compute: ({ x, w }: Record<string, tf.Tensor>, { bridge }: { bridge: Bridge }) => {
    const { call, rule } = bridge;
    const left = x as tf.Tensor;
    const right = w as tf.Tensor;
    if (rule?.plan) {
      call.plan = rule.plan(call, left, right);
      call.scope.plans.set(call.site.name, call.plan);
    }
    return rule?.forward ? rule.forward(call, left, right) : call.exact.forward(left, right);
  },
};

/**
 * Registers the gradient of the product kernel. Its thunks are lazy: the first layer of a model computes no dX, which
 * `tf.customGrad` would compute and throw away.
 */
export function registerLinearGradient(): void {
  registerGradientOnce({
    kernelName: linearComposite.name,
    inputsToSave: ['x', 'w'],
    gradFunc: (dy, saved, attrs) => {
      const { call, rule, observers } = (attrs as unknown as { bridge: Bridge }).bridge;
      const [x, w] = saved as [tf.Tensor, tf.Tensor];
      const d = dy as tf.Tensor;
      for (const observer of observers) tf.tidy(() => observer.onBackward(call, x, d));
      return {
        x: () => rule?.inputGrad?.(call, d, w, x.shape) ?? call.exact.inputGrad(d, w, x.shape),
        w: () => rule?.weightGrad?.(call, x, d, w.shape) ?? call.exact.weightGrad(x, d, w.shape),
      };
    },
  });
}

/** Evaluates the product of a site. A dense x of higher rank is flattened to [rows, features] and back. */
export function linear(x: tf.Tensor, w: tf.Tensor, bridge: Bridge): tf.Tensor {
  if (bridge.call.site.geometry.kind === 'conv2d' || x.rank === 2)
    return runOne(linearComposite.name, { x, w }, { bridge });
  const features = x.shape.at(-1) as number;
  const y = runOne(linearComposite.name, { x: tf.reshape(x, [-1, features]), w }, { bridge });
  return tf.reshape(y, [...x.shape.slice(0, -1), w.shape[1] as number]);
}
