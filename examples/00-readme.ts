// The example of the README. Expected: two epochs as JSON lines (a bar on a terminal), then a table of what was multiplied:
//   conv1   kept 1.000
//   conv2   kept 0.500
//   dense1  kept 0.500
//   output  kept 1.000
//   test accuracy 0.8xx (few examples, few epochs: it is a demonstration, not a result)
import { train, useEngine } from '@frugal/core';
import { digits, lenet } from '@frugal/models';
import { demon, sgd } from '@frugal/optim';
import { topK } from '@frugal/sampling';

await useEngine();
const data = digits({ train: 1500, test: 300 });
const report = await train(lenet(), data.train, {
  methods: [topK({ keep: 0.5 })],
  optimizer: sgd({ learningRate: 0.01, momentum: demon({ initial: 0.9 }) }),
  epochs: 2,
  batchSize: 32,
  seed: 1,
  validation: data.test,
});
for (const { site, kept } of report.sites) console.log(`${site.padEnd(7)} kept ${kept.toFixed(3)}`);
console.log(`test accuracy ${report.epochs.at(-1)?.validation?.accuracy?.toFixed(3)}`);
