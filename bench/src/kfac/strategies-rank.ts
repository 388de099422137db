import { allReduce, mpi } from '@frugal/cluster';
import { stepper, useEngine } from '@frugal/core';
import { resnet20 } from '@frugal/models';
import { type Distribution, kfac, sgd } from '@frugal/optim';
import * as tf from '@tensorflow/tfjs';

// One rank of `bench kfac`: ResNet-20 with K-FAC by each strategy. Prints milliseconds per step, and what each rank holds and
// sends. Started by mpirun.
const RATE = 0.05;
const [batchSize = 8, steps = 20] = process.argv.slice(2).map(Number);

await useEngine();
await using communicator = await mpi();
const { size } = communicator;
const strategies: Distribution['strategy'][] = ['communication-optimal', 0.5, 'layer-wise'];
const xs = tf.randomNormal([batchSize * size, 32, 32, 3], 0, 1, 'float32', 1);
const ys = tf.tidy(() =>
  tf.oneHot(tf.range(0, batchSize * size, 1, 'int32').mod(tf.scalar(10, 'int32')), 10).toFloat(),
);

/** Time and traffic of one strategy. */
async function measure(strategy: Distribution['strategy']) {
  const model = resnet20({ seed: 1 });
  const method = kfac({
    factorEvery: 5,
    inverseEvery: 10,
    distribution: { ...(strategy !== undefined && { strategy }) },
  });
  const optimizer = [allReduce(), method.link, sgd({ learningRate: RATE, momentum: 0.9 })];
  const run = stepper(model, { optimizer, methods: [method], communicator, totalSteps: steps });
  // The first step opens groups and compiles.
  await run.step({ xs, ys });
  await communicator.barrier();
  const started = performance.now();
  let loss = 0;
  for (let i = 1; i < steps; i++) ({ loss } = await run.step({ xs, ys }));
  await communicator.barrier();
  const ms = (performance.now() - started) / (steps - 1);
  const { decompositionBytes, sent, milliseconds } = run.of(method);
  const held = Float64Array.of(decompositionBytes);
  await communicator.allReduce(held, 'max');
  const ofSteps = Float64Array.from(Object.values(sent), (bytes) => bytes / steps);
  await communicator.allReduce(ofSteps, 'max');
  const [factors = 0, decompositions = 0, gradients = 0] = ofSteps;
  run.dispose();
  model.dispose();
  return { strategy: String(strategy), ms, loss, held: held[0] ?? 0, factors, decompositions, gradients, milliseconds };
}

const results = [];
for (const strategy of strategies) results.push(await measure(strategy));
if (communicator.rank === 0) process.stdout.write(`${JSON.stringify(results)}\n`);
