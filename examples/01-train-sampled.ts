// Trains LeNet on procedural digits, exact and with top-k sampled products, and prints what each site multiplied.
// Expected (accuracies and seconds differ between machines, the shares do not):
//   exact        test accuracy 0.8xx   x.x s
//   topK         test accuracy 0.8xx   x.x s
//   site      rule    kept
//   conv1     topK   1.000     (one input channel: nothing to drop)
//   conv2     topK   0.500
//   dense1    topK   0.500
//   output    exact  1.000     (the output layer stays exact unless it is asked for)
//   every trainable weight is covered
import { type Method, train, type TrainReport, useEngine } from '@frugal/core';
import { digits, lenet } from '@frugal/models';
import { sgd } from '@frugal/optim';
import { topK } from '@frugal/sampling';

await useEngine();
const data = digits({ train: 1000, test: 200 });

async function run(methods: Method[]): Promise<TrainReport> {
  const model = lenet({ seed: 1 });
  const report = await train(model, data.train, {
    methods,
    optimizer: sgd({ learningRate: 0.01, momentum: 0.9 }),
    epochs: 2,
    batchSize: 32,
    seed: 1,
    validation: data.test,
    progress: false,
  });
  model.dispose();
  const accuracy = report.epochs.at(-1)?.validation?.accuracy ?? 0;
  const seconds = report.seconds.toFixed(1);
  console.log(`${report.title.padEnd(12)} test accuracy ${accuracy.toFixed(3)} ${seconds.padStart(5)} s`);
  return report;
}

await run([]);
const sampled = await run([topK({ keep: 0.5 })]);

console.log('site      rule    kept');
for (const { site, rule, kept } of sampled.sites) {
  console.log(`${site.padEnd(9)} ${rule.padEnd(6)} ${kept.toFixed(3)}`);
}
// Silence here would be a claim: what no method reaches trains exact.
for (const { weight, reason } of sampled.uncovered) console.log(`not covered: ${weight}: ${reason}`);
if (sampled.uncovered.length === 0) console.log('every trainable weight is covered');
