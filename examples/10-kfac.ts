// K-FAC, alone and on many ranks: the same chain, whose K-FAC link stands after the sum over ranks.
//   node script/source.mjs examples/10-kfac.ts
//   node script/source.mjs examples/10-kfac.ts --local 4
//   node script/source.mjs packages/core/src/cli.ts launch -n 4 examples/10-kfac.ts
// Expected, the same on any number of ranks but for rounding and what each holds:
//   SGD    loss x.xxx x.xxx x.xxx x.xxx
//   K-FAC  loss x.xxx x.xxx x.xxx x.xxx, the last far below
//   rank 0 of 1: 3 layers, decomposed 4 times, n KiB held
import { allReduce, alone, environmentRank, localCluster, mpi } from '@frugal/cluster';
import { type Communicator, type Link, type Method, train, type TrainReport, useEngine } from '@frugal/core';
import { digits, mlp } from '@frugal/models';
import { kfac, sgd } from '@frugal/optim';

const learningRate = 0.1;
const last = sgd({ learningRate, momentum: 0.9 });

async function trained(communicator: Communicator, optimizer: Link[], methods: Method[]): Promise<TrainReport> {
  const data = digits({ train: 600, test: 1 });
  const model = mlp({ inputShape: [28, 28, 1], hidden: [32, 32], seed: 3 });
  const run = { communicator, epochs: 4, batchSize: 60, seed: 1, progress: false } as const;
  return train(model, data.train, { ...run, optimizer, methods });
}

const losses = ({ epochs }: TrainReport): string => `loss ${epochs.map(({ loss }) => loss.toFixed(3)).join(' ')}`;

async function run(communicator: Communicator): Promise<void> {
  const { rank, size } = communicator;
  const k = kfac({
    klClip: 0.3,
    damping: 1,
    factorEvery: 1,
    inverseEvery: 10,
    distribution: { strategy: 'layer-wise' },
  });
  const plain = await trained(communicator, [allReduce(), last], []);
  const curved = await trained(communicator, [allReduce(), k.link, last], [k]);
  if (rank !== 0) return;
  const { layers, decompositions, decompositionBytes } = curved.of(k);
  console.log(`SGD    ${losses(plain)}`);
  console.log(`K-FAC  ${losses(curved)}`);
  console.log(
    `rank 0 of ${size}: ${layers.length} layers, decomposed ${decompositions} times, ${(decompositionBytes / 1024).toFixed(0)} KiB held`,
  );
}

await useEngine();
const local = process.argv.indexOf('--local');
if (local > 0) {
  await localCluster(Number(process.argv[local + 1]), run);
} else if (environmentRank().launcher) {
  await using communicator = await mpi();
  await run(communicator);
} else {
  await run(alone());
}
