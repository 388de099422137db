// Keras style: attach methods to any LayersModel, then compile and fit as ever. Expected:
//   epoch 1  loss x.xxx  accuracy 0.xxx
//   epoch 2  loss x.xxx  accuracy 0.xxx
//   epoch 3  loss x.xxx  accuracy 0.xxx
//   hidden: winnerTakeAll, kept 0.5xx-0.7xx of the multiply-adds
//   head: exact, kept 1.000 of the multiply-adds
//   the layers are stock again: true
import { attach, batches, useEngine } from '@frugal/core';
import { digits } from '@frugal/models';
import { adam, cosine } from '@frugal/optim';
import { winnerTakeAll } from '@frugal/sampling';
import * as tf from '@tensorflow/tfjs';

await useEngine();
const { train } = digits({ train: 1200, test: 1 });
const epochs = 3;
const batchSize = 40;

const model = tf.sequential({
  layers: [
    tf.layers.flatten({ inputShape: [28, 28, 1] }),
    tf.layers.dense({ name: 'hidden', units: 128, activation: 'relu' }),
    tf.layers.dense({ name: 'head', units: 10, activation: 'softmax' }),
  ],
});
const stock = model.layers.map((layer) => layer.call);

const attached = attach(model, winnerTakeAll({ keep: 0.5, mode: 'backward' }));
const totalSteps = (epochs * train.length) / batchSize; // fit tells no optimizer how long it will run
const optimizer = attached.optimizer(adam({ learningRate: cosine({ initial: 0.001 }) }), { totalSteps, seed: 1 });
model.compile({ optimizer, loss: 'categoricalCrossentropy', metrics: ['accuracy'] });

for (const { xs, ys } of batches(train, { batchSize: train.length })) {
  // fit shuffles by Math.random; for a run that repeats, shuffle: false.
  await model.fit(xs, ys, {
    epochs,
    batchSize,
    shuffle: false,
    verbose: 0,
    callbacks: {
      onEpochEnd: (epoch, logs) => {
        console.log(`epoch ${epoch + 1}  loss ${logs?.['loss']?.toFixed(3)}  accuracy ${logs?.['acc']?.toFixed(3)}`);
      },
    },
  });
}
for (const { site, rule, kept } of attached.report()) {
  console.log(`${site}: ${rule}, kept ${kept.toFixed(3)} of the multiply-adds`);
}
attached.detach();
console.log(`the layers are stock again: ${model.layers.every((layer, i) => layer.call === stock[i])}`);
