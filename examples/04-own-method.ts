// A method of your own: dW from half of the examples, drawn anew in each step, for dense and convolution alike. Expected
// (one sample is far from the exact gradient, the mean of 400 about twenty times nearer: the estimate is unbiased):
//   conv/kernel   one sample x.xx   mean of 400 0.0xx
//   head/kernel   one sample x.xx   mean of 400 0.0xx
//   conv: half of the batch, kept 0.750   (and head 0.833; conv has no dX to compute: Y is exact, dW is halved)
import { attach, clockAt, type Method, type Rule, takeSlices, useEngine } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** dW ≈ (n/k) · Σ over k of the n examples, drawn without replacement. */
function halfBatch(): Method {
  const name = 'half of the batch';
  const rule: Rule = {
    name,
    bias: 'unbiased',
    weightGrad(call, x, dy, wShape) {
      const { left, right } = call.site.geometry.contractions.weightGrad; // the batch, in both operands
      const n = x.shape[left] as number;
      const k = Math.ceil(n / 2);
      const drawn = call.scope.random(name, call.key).permutation(n).subarray(0, k);
      const indices = Int32Array.from(drawn).sort();
      const scales = new Float32Array(k).fill(n / k);
      const xs = takeSlices(x, left, { indices, scales });
      return call.exact.weightGrad(xs, takeSlices(dy, right, { indices }), wShape);
    },
  };
  // Each run opens the method for itself; this one has no state to make.
  return { name, source: 'this example', open: () => ({ rule }) };
}

await useEngine();
const model = tf.sequential();
model.add(tf.layers.conv2d({ name: 'conv', inputShape: [6, 6, 2], filters: 3, kernelSize: 3, activation: 'relu' }));
model.add(tf.layers.flatten());
model.add(tf.layers.dense({ name: 'head', units: 4 }));
const x = tf.randomNormal([16, 6, 6, 2], 0, 1, 'float32', 7);
const target = tf.randomNormal([16, 4], 0, 1, 'float32', 8);
const loss = (): tf.Scalar => tf.mean(tf.squaredDifference(model.apply(x, { training: true }) as tf.Tensor, target));

const gradients = (): tf.Tensor[] => Object.values(tf.variableGrads(loss).grads).filter(({ rank }) => rank > 1);
const exact = gradients();
const attached = attach(model, halfBatch());
const draw = (step: number): tf.Tensor[] => {
  attached.begin(clockAt(step), { seed: 1 }); // opens a step; its stream draws the sample
  return tf.tidy(gradients);
};
const first = draw(0);
let sum = first;
for (let step = 1; step < 400; step++) sum = draw(step).map((g, i) => tf.add(g, sum[i] as tf.Tensor));

const norm = (t: tf.Tensor): number => Math.hypot(...t.dataSync());
const error = (g: tf.Tensor, right: tf.Tensor): string => (norm(tf.sub(g, right)) / norm(right)).toFixed(3);
exact.forEach((right, i) => {
  const weight = attached.sites[i]?.name;
  const [one, mean] = [first[i] as tf.Tensor, tf.div(sum[i] as tf.Tensor, 400)].map((g) => error(g, right));
  console.log(`${weight}/kernel   one sample ${one}   mean of 400 ${mean}`);
});
for (const { site, rule, kept } of attached.report()) console.log(`${site}: ${rule}, kept ${kept.toFixed(3)}`);
