// A training loop of your own: batches, single steps, exact evaluation. Expected:
//   epoch 1  loss x.xxx  steps 15  test accuracy 0.xxx
//   epoch 2  loss x.xxx  steps 30  test accuracy 0.xxx
//   epoch 3  loss x.xxx  steps 45  test accuracy 0.xxx
//   learning rate in the last step 4.44e-5
//   no tensors left behind: true
import { batchCount, batches, clockAt, evaluate, openScope, stepper, useEngine } from '@frugal/core';
import { digits, mlp } from '@frugal/models';
import { adamw, clipByGlobalNorm, linear } from '@frugal/optim';
import { bernoulli } from '@frugal/sampling';
import * as tf from '@tensorflow/tfjs';

await useEngine();
const data = digits({ train: 600, test: 200 });
const model = mlp({ inputShape: [28, 28, 1], hidden: [128, 128], dropout: 0.1 });
const epochs = 3;
const batchSize = 40;
const seed = 1;
const totalSteps = epochs * batchCount(data.train, { batchSize });

const before = tf.memory().numTensors;
const { step, chain, dispose } = stepper(model, {
  methods: [bernoulli({ keep: 0.5, mode: 'backward' })],
  // A chain: the links stand in the order in which they run.
  optimizer: [clipByGlobalNorm({ norm: 5 }), adamw({ learningRate: linear({ initial: 2e-3 }) })],
  totalSteps,
  seed,
});
let steps = 0;
for (let epoch = 0; epoch < epochs; epoch++) {
  let sum = 0;
  // A batch is yours for one turn of the loop; the next one overwrites it.
  for (const batch of batches(data.train, { batchSize, shuffle: { seed, epoch } })) {
    const { loss } = await step(batch);
    sum += loss;
    steps++;
  }
  const loss = (sum / batchCount(data.train, { batchSize })).toFixed(3);
  const accuracy = evaluate(model, data.test).accuracy?.toFixed(3);
  console.log(`epoch ${epoch + 1}  loss ${loss}  steps ${steps}  test accuracy ${accuracy}`);
}
const { learningRate } = chain.hyperparameters(openScope(clockAt(steps - 1, totalSteps), seed));
console.log(`learning rate in the last step ${learningRate?.toExponential(2)}`);
dispose(); // gives the layers back and frees the optimizer's state
console.log(`no tensors left behind: ${tf.memory().numTensors === before}`);
