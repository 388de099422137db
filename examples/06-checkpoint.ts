// Stops a run by a signal in the middle of an epoch, goes on from its checkpoint, and compares with a run that was never
// stopped: the weights are the same to the last bit. Expected:
//   ABORTED: run: stopped at step 17 by its signal. The state is saved in …
//   resumed: 30 steps, 3 epochs in the report
//   same bits: true
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FrugalError, train, type TrainOptions, type TrainReport, useEngine } from '@frugal/core';
import { digits, mlp } from '@frugal/models';
import { adam } from '@frugal/optim';
import { columnRow } from '@frugal/sampling';
import type { LayersModel } from '@tensorflow/tfjs';

await useEngine();
const data = digits({ train: 600, test: 200 });
const fresh = (): LayersModel => mlp({ inputShape: [28, 28, 1], hidden: [96], dropout: 0.2, seed: 3 });
const run = (model: LayersModel, extra: Partial<TrainOptions>): Promise<TrainReport> =>
  train(model, data.train, {
    methods: [columnRow({ keep: 0.6 })],
    optimizer: adam({ learningRate: 0.001 }),
    epochs: 3,
    batchSize: 60,
    seed: 5,
    title: 'run',
    progress: false,
    ...extra,
  });
const digest = (model: LayersModel): string => {
  const hash = createHash('sha256');
  for (const weight of model.getWeights()) hash.update(new Uint8Array(weight.dataSync().slice().buffer));
  return hash.digest('hex');
};

const folder = await mkdtemp(join(tmpdir(), 'frugal-'));
try {
  const stop = new AbortController();
  let steps = 0;
  const progress: TrainOptions['progress'] = ({ kind }) => {
    if (kind === 'step' && ++steps === 17) stop.abort();
  };
  await run(fresh(), { checkpoint: { folder }, signal: stop.signal, progress }).catch((error: unknown) => {
    if (!FrugalError.is(error, 'ABORTED')) throw error;
    console.log(`${error.code}: ${error.message}`);
  });

  // The same call again: a new model takes its weights, the optimizer's state and the place in the data from the folder.
  const resumed = fresh();
  const report = await run(resumed, { checkpoint: { folder } });
  console.log(`resumed: ${report.steps} steps, ${report.epochs.length} epochs in the report`);

  const straight = fresh();
  await run(straight, {});
  console.log(`same bits: ${digest(resumed) === digest(straight)}`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
