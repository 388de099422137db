import { mpi } from '@frugal/cluster';
import { type Communicator, stepper, type Stepper, useEngine } from '@frugal/core';
import { lenet } from '@frugal/models';
import * as tf from '@tensorflow/tfjs';
import { median } from '../results.js';
import { wireMethods } from './wire-methods.js';

// One rank of `bench wire`: milliseconds per step of LeNet without and with each exchange, in interleaved rounds. Started by
// mpirun.
const WARM_UP = 3;
const [batchSize = 32, rounds = 5] = process.argv.slice(2).map(Number);

async function time(
  run: Stepper,
  batch: { xs: tf.Tensor; ys: tf.Tensor },
  communicator: Communicator,
): Promise<number> {
  await communicator.barrier();
  const started = performance.now();
  await run.step(batch);
  await communicator.barrier();
  return performance.now() - started;
}

await useEngine();
await using communicator = await mpi();
const batch = {
  xs: tf.randomUniform([batchSize, 28, 28, 1], 0, 1, 'float32', 1 + communicator.rank),
  ys: tf.oneHot(tf.range(0, batchSize, 1, 'int32').mod(tf.scalar(10, 'int32')), 10).toFloat(),
};
const times: Record<string, number[]> = {};
const bytes: Record<string, number> = {};
for (const method of wireMethods) {
  // One model at a time keeps the memory of four ranks small; `alone` runs beside each, so that drift hits both alike.
  const models = [lenet({ seed: 1 }), lenet({ seed: 1 })];
  const own = method.make();
  const plain = method.alone();
  const runs = [
    stepper(models[0] as tf.LayersModel, plain),
    stepper(models[1] as tf.LayersModel, { ...own.options, communicator }),
  ];
  for (let r = -WARM_UP; r < rounds; r++) {
    for (const [i, run] of runs.entries()) {
      const ms = await time(run, batch, communicator);
      const key = i === 0 ? `${method.key}.alone` : method.key;
      if (r >= 0) (times[key] ??= []).push(ms);
    }
  }
  bytes[method.key] = (runs[1] as Stepper).of(own.link).bytesPerStep;
  for (const run of runs) run.dispose();
  for (const model of models) model.dispose();
}
if (communicator.rank === 0) {
  const medians = Object.fromEntries(Object.entries(times).map(([key, values]) => [key, median(values)]));
  process.stdout.write(`${JSON.stringify({ ranks: communicator.size, ms: medians, bytes })}\n`);
}
