import { createHash } from 'node:crypto';
import { mpi } from '@frugal/cluster';
import { train, useEngine } from '@frugal/core';
import { esmda, friedman } from '@frugal/optim';
import * as tf from '@tensorflow/tfjs';

// One rank of `bench ensemble`: ES-MDA whose members are divided over the ranks, with a network large enough that the forward
// passes, which are divided, outweigh the analysis, which every rank makes. Started by mpirun.
await useEngine();
await using communicator = await mpi();
const { train: data } = friedman({ length: 20_000 });
const start = (seed: number) => tf.initializers.glorotNormal({ seed });
const model = tf.sequential({
  layers: [
    tf.layers.dense({ inputShape: [10], units: 128, activation: 'tanh', kernelInitializer: start(1) }),
    tf.layers.dense({ units: 128, activation: 'tanh', kernelInitializer: start(2) }),
    tf.layers.dense({ units: 1, kernelInitializer: start(3) }),
  ],
});
const method = esmda({ members: 40, observationNoise: 0.1, log: () => undefined });
// Ranks start at different times; none waits for another in what is measured.
await communicator.barrier();
const report = await train(model, data, {
  methods: [method],
  optimizer: [],
  epochs: 4,
  batchSize: data.length,
  seed: 1,
  progress: false,
  communicator,
});
const hash = createHash('sha256');
for (const weight of model.getWeights()) hash.update(Uint8Array.from(new Uint8Array(weight.dataSync().slice().buffer)));
if (communicator.rank === 0) {
  const { forwardPassesHere } = report.of(method);
  process.stdout.write(
    `${JSON.stringify({ seconds: report.seconds, forwardPassesHere, weights: hash.digest('hex') })}\n`,
  );
}
