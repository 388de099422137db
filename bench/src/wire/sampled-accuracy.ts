import { allReduce, type ExchangeReport, sampledAllReduce } from '@frugal/cluster';
import { type Communicator, type Dataset, evaluate, type ExchangeLink, type Method, train } from '@frugal/core';
import { lenet } from '@frugal/models';
import { linear, sgd } from '@frugal/optim';
import { topK } from '@frugal/sampling';
import { KEEP } from './wire-methods.js';

/** What one training gave. */
export interface Outcome {
  readonly accuracy: number;
  readonly bytesPerStep: number;
}

/** LeNet on the ranks of a communicator, each with its part of every batch. */
async function run(
  communicator: Communicator,
  data: { train: Dataset; test: Dataset },
  { seed, epochs }: { seed: number; epochs: number },
  { link, methods }: { link: ExchangeLink<ExchangeReport>; methods: Method[] },
): Promise<Outcome> {
  const model = lenet({ seed });
  const report = await train(model, data.train, {
    methods,
    optimizer: [link, sgd({ learningRate: linear({ initial: 0.02 }), momentum: 0.9 })],
    epochs,
    batchSize: 64,
    seed,
    communicator,
  });
  const accuracy = communicator.rank === 0 ? (evaluate(model, data.test).accuracy ?? 0) : 0;
  model.dispose();
  return { accuracy, bytesPerStep: report.of(link).bytesPerStep };
}

/** Accuracy and bytes of LeNet with whole and with sampled gradients on the wire. */
export async function sampledAccuracy(
  communicator: Communicator,
  data: { train: Dataset; test: Dataset },
  options: { seed: number; epochs: number },
): Promise<{ exact: Outcome; sampled: Outcome }> {
  const methods = [topK({ keep: KEEP, by: 'weights' })];
  const exact = await run(communicator, data, options, { link: allReduce(), methods: [] });
  const sampled = await run(communicator, data, options, { link: sampledAllReduce(), methods });
  return { exact, sampled };
}
