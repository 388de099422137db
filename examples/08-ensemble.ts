// Trains without gradients: an ensemble Kalman filter learns a sine from a stream of 100 observations, each seen once.
// Expected: a small error, and a spread of the members that is about as large as it (to the digit on one engine):
//   100 analyses, 10000 forward passes, members run batched
//   x −2.4   sin −0.67   mean −0.7 ± 0.0 (about; and so on)
//   RMSE below 0.15
import { train, useEngine } from '@frugal/core';
import { enkf, sine } from '@frugal/optim';
import * as tf from '@tensorflow/tfjs';

await useEngine();
const normal = (seed: number) => tf.initializers.randomNormal({ stddev: 1, seed });
const hidden = { units: 10, activation: 'tanh', kernelInitializer: normal(11), biasInitializer: normal(12) } as const;
const model = tf.sequential({
  layers: [
    tf.layers.dense({ inputShape: [1], ...hidden }),
    tf.layers.dense({ units: 1, kernelInitializer: normal(13) }),
  ],
});

const method = enkf({ members: 100, observationNoise: 0.05 });
const data = sine({ seed: 1 });
const report = await train(model, data.stream(100), {
  methods: [method],
  optimizer: [],
  epochs: 1,
  batchSize: 1,
  seed: 1,
  progress: false,
});
const { analyses, forwardPasses, forward, predict } = report.of(method);
console.log(`${analyses} analyses, ${forwardPasses} forward passes, members run ${forward}`);

// Inputs of the network are x / (π / 3).
const xs = tf.linspace(-Math.PI, Math.PI, 9).reshape([9, 1]);
const { mean, standardDeviation } = predict(tf.mul(xs, 3 / Math.PI));
const [x, y, s] = [xs, mean, standardDeviation].map((tensor) => tensor.dataSync());
let square = 0;
for (const [i, at] of (x as Float32Array).entries()) {
  const [value, deviation] = [y?.[i] as number, s?.[i] as number];
  square += (value - Math.sin(at)) ** 2 / 9;
  const numbers = [at.toFixed(1), Math.sin(at).toFixed(2), value.toFixed(2)];
  console.log(`x ${numbers[0]}   sin ${numbers[1]}   mean ${numbers[2]} ± ${deviation.toFixed(2)}`);
}
console.log(`RMSE ${Math.sqrt(square).toFixed(3)}: ${Math.sqrt(square) < 0.15 ? 'below' : 'above'} 0.15`);
