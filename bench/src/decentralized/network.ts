import {
  allReduce,
  awcDmsgd,
  d2,
  daDmsgd,
  decentlam,
  dmsgd,
  dsgd,
  edm,
  localCluster,
  momentumTracking,
  qgDmsgd,
  ring,
  slowMo,
} from '@frugal/cluster';
import { averageModel, type Dataset, evaluate, type Link, train } from '@frugal/core';
import { mlp } from '@frugal/models';
import { sgd } from '@frugal/optim';

/** How one method trains. */
export interface Decentralized {
  readonly key: string;
  readonly title: string;
  make(learningRate: number): Link[];
}

const topology = ring();
const momentum = 0.9;

/** All-reduce, and the methods that talk to two neighbours only. */
export const methods: readonly Decentralized[] = [
  { key: 'pmsgd', title: 'PmSGD (all-reduce)', make: (learningRate) => [allReduce(), sgd({ learningRate, momentum })] },
  // Without momentum, at the rate that momentum would amount to.
  {
    key: 'dsgd',
    title: 'DSGD, rate γ/(1 − β)',
    make: (rate) => [dsgd({ learningRate: rate / (1 - momentum), topology })],
  },
  { key: 'dmsgd', title: 'DmSGD', make: (learningRate) => [dmsgd({ learningRate, momentum, topology })] },
  { key: 'awc', title: 'AWC-DmSGD', make: (learningRate) => [awcDmsgd({ learningRate, momentum, topology })] },
  { key: 'da', title: 'DA-DmSGD', make: (learningRate) => [daDmsgd({ learningRate, momentum, topology })] },
  { key: 'slowmo', title: 'SlowMo', make: (learningRate) => [slowMo({ learningRate, momentum, topology })] },
  { key: 'qg', title: 'QG-DmSGD', make: (learningRate) => [qgDmsgd({ learningRate, momentum, topology })] },
  { key: 'd2', title: 'D²-DmSGD', make: (learningRate) => [d2({ learningRate, momentum, topology })] },
  { key: 'decentlam', title: 'DecentLaM', make: (learningRate) => [decentlam({ learningRate, momentum, topology })] },
  {
    key: 'momentum_tracking',
    title: 'Momentum Tracking',
    make: (learningRate) => [momentumTracking({ learningRate, momentum, topology })],
  },
  { key: 'edm', title: 'EDM', make: (learningRate) => [edm({ learningRate, momentum, topology })] },
];

/** Sorted by label and cut: each rank knows one or two classes. */
export function shards(data: Dataset, ranks: number, each: number): Dataset[] {
  const size = data.shape.reduce((a, b) => a * b, 1);
  const length = ranks * each;
  const order = Array.from({ length }, (_, i) => i).sort(
    (a, b) => (data.targets[a] as number) - (data.targets[b] as number),
  );
  return Array.from({ length: ranks }, (_, rank) => {
    const inputs = new Uint8Array(each * size);
    const targets = new Uint8Array(each);
    for (let i = 0; i < each; i++) {
      const from = order[rank * each + i] as number;
      inputs.set(data.inputs.subarray(from * size, (from + 1) * size), i * size);
      targets[i] = data.targets[from] as number;
    }
    return { ...data, length: each, inputs, targets };
  });
}

/** What one run gave. */
export interface Accuracies {
  /** Of the mean of all models. */
  readonly average: number;
  /** Of the models themselves, on average. */
  readonly nodes: number;
}

/** Trains one network on every rank of a cluster in this process, full batches, and tests. */
export async function trainNetwork(
  method: Decentralized,
  data: { parts: readonly Dataset[]; test: Dataset },
  run: { epochs: number; learningRate: number; seed: number },
): Promise<Accuracies> {
  const ranks = data.parts.length;
  const found = await localCluster(ranks, async (communicator) => {
    const own = data.parts[communicator.rank] as Dataset;
    const model = mlp({ inputShape: data.test.shape, hidden: [64], seed: run.seed });
    await train(model, own, {
      optimizer: method.make(run.learningRate),
      division: 'data',
      batchSize: own.length,
      epochs: run.epochs,
      seed: run.seed,
      progress: false,
      communicator,
    });
    const node = evaluate(model, data.test, { batchSize: 1000 }).accuracy ?? 0;
    await averageModel(model, communicator);
    const average = communicator.rank === 0 ? (evaluate(model, data.test, { batchSize: 1000 }).accuracy ?? 0) : 0;
    model.dispose();
    return { node, average };
  });
  return { average: found[0]?.average ?? 0, nodes: found.reduce((sum, { node }) => sum + node, 0) / ranks };
}
