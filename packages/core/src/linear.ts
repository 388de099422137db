import * as tf from '@tensorflow/tfjs';
import { biasActivation, type FusedActivation } from './kernels/bias-activation.js';
import { type Composite, leading, registerGradientOnce, runKernel, runOne } from './kernels/run.js';
import type { Counts, Epilogue } from './geometry.js';
import { type Call, type Observer, type Rule, sampledSlices, type SampledSlices } from './rule.js';

/** What the product kernel needs to know; travels in its attributes, which TensorFlow.js hands on untouched. */
export interface Bridge {
  /** The evaluation. */
  readonly call: Call;
  /** The rule of the site, if one acts there. */
  readonly rule: Rule | undefined;
  /** Who looks. */
  readonly observers: readonly Observer[];
  /** Receives the multiply-adds of the exact products, whatever the rule does. */
  readonly exact: Counts;
  /** What follows the product. */
  readonly activation: FusedActivation;
}

type Inputs = { readonly x: tf.Tensor; readonly w: tf.Tensor; readonly bias?: tf.Tensor };

function forward({ call, rule, exact, activation }: Bridge, { x, w, bias }: Inputs): tf.Tensor {
  if (rule?.plan) {
    call.plan = rule.plan(call, x, w);
    notePlan(call);
  }
  const epilogue: Epilogue | undefined =
    bias || activation === 'relu' ? { ...(bias && { bias }), activation } : undefined;
  let y: tf.Tensor;
  if (rule?.forward) {
    const z = rule.forward(call, x, w);
    y = bias ? biasActivation(z, bias, activation) : activation === 'relu' ? tf.relu(z) : z;
  } else {
    const [xs, ws] = rule?.operands?.(call, x, w) ?? [x, w];
    y = call.exact.forward(xs, ws, epilogue);
  }
  exact.forward += call.site.geometry.multiplyAdds(y.shape, w.shape);
  return y;
}

/** Indices of either. Undefined, which is dense, where the host does not know them. */
function union(a: SampledSlices | undefined, b: SampledSlices | undefined): SampledSlices | undefined {
  if (!(a?.indices instanceof Int32Array && b?.indices instanceof Int32Array)) return undefined;
  return { axis: a.axis, indices: Int32Array.from(new Set([...a.indices, ...b.indices])).sort() };
}

/** Shows a plan to links. Of a site that is called again, in this pass or in a later part, dW has the slices of all calls. */
function notePlan({ scope: { plans }, site, plan }: Call): void {
  const before = plans.get(site);
  if (before === undefined) plans.set(site, plan);
  else plans.set(site, { ...(plan as object), sampled: union(sampledSlices(before), sampledSlices(plan)) });
}

/** The product of a site as a kernel: activation(X·W + bias), or what the rule puts in place of X·W. */
export const linearComposite: Composite = {
  name: 'FrugalLinear',
  compute: (inputs: Record<string, tf.Tensor>, { bridge }: { bridge: Bridge }) =>
    forward(bridge, inputs as unknown as Inputs),
};

/** Takes the gradient of y back through activation and bias. */
function throughEpilogue(
  dy: tf.Tensor,
  y: tf.Tensor,
  activation: FusedActivation,
): { d: tf.Tensor; db: () => tf.Tensor } {
  if (activation === 'linear') return { d: dy, db: () => tf.sum(dy, leading(dy)) };
  const [d, db] = runKernel('FrugalReluBiasGrad', { dy, y }) as [tf.Tensor, tf.Tensor];
  return { d, db: () => db };
}

/**
 * Registers the gradient of the product kernel. Its thunks are lazy: the first layer of a model computes no dX, which
 * `tf.customGrad` would compute and throw away.
 */
export function registerLinearGradient(): void {
  registerGradientOnce({
    kernelName: linearComposite.name,
    inputsToSave: ['x', 'w'],
    outputsToSave: [true],
    gradFunc: (dy, saved, attrs) => {
      const { call, rule, observers, exact, activation } = (attrs as unknown as { bridge: Bridge }).bridge;
      const [x, w, y] = saved as [tf.Tensor, tf.Tensor, tf.Tensor];
      const { d, db } = throughEpilogue(dy as tf.Tensor, y, activation);
      const { multiplyAdds } = call.site.geometry;
      for (const observer of observers) tf.tidy(() => observer.onBackward(call, x, d));
      return {
        x: () => {
          exact.inputGrad += multiplyAdds(d.shape, w.shape);
          return rule?.inputGrad?.(call, d, w, x.shape) ?? call.exact.inputGrad(d, w, x.shape);
        },
        w: () => {
          exact.weightGrad += multiplyAdds(d.shape, w.shape);
          return rule?.weightGrad?.(call, x, d, w.shape) ?? call.exact.weightGrad(x, d, w.shape);
        },
        bias: db,
      };
    },
  });
}

/** Evaluates the product of a site on the input of its layer. */
export function linear(input: tf.Tensor, w: tf.Tensor, bias: tf.Tensor | undefined, bridge: Bridge): tf.Tensor {
  const float = input.dtype === 'float32' ? input : tf.cast(input, 'float32');
  const { x, rowsPerExample, restore } = bridge.call.site.geometry.operandOf(float);
  const call = rowsPerExample === undefined ? bridge.call : { ...bridge.call, rowsPerExample };
  return restore(runOne(linearComposite.name, { x, w, ...(bias && { bias }) }, { bridge: { ...bridge, call } }));
}
