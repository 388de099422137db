import { type Dataset, evaluate, slice, train } from '@frugal/core';
import { anyDigits } from '@frugal/models';
import { enkf, sgd } from '@frugal/optim';
import * as tf from '@tensorflow/tfjs';
import { type Figures, round } from './results.js';

const EXAMPLES = 1000;
const MEMBERS = 600;
const RATES = [0.01, 0.03, 0.1, 0.3, 1];

/** Means over 4 × 4 pixels: 49 inputs, few enough weights for an ensemble. */
function small(data: Dataset): Dataset {
  const inputs = new Float32Array(data.length * 49);
  for (let n = 0; n < data.length; n++) {
    for (let p = 0; p < 784; p++) {
      const cell = n * 49 + 7 * Math.floor(p / 112) + Math.floor((p % 28) / 4);
      inputs[cell] = (inputs[cell] as number) + (data.inputs[n * 784 + p] as number) / (16 * 255);
    }
  }
  return { ...data, shape: [49], inputs, normalize: { mean: [0.13], std: [0.25] } };
}

/** 49-10-10 of tanh: 610 parameters, as many as members. */
function network(seed: number): tf.LayersModel {
  const start = (layer: number, stddev: number) => tf.initializers.randomNormal({ stddev, seed: 10 * seed + layer });
  const hidden = { units: 10, activation: 'tanh', kernelInitializer: start(1, 1 / 7) } as const;
  const layers = [
    tf.layers.dense({ inputShape: [49], ...hidden }),
    tf.layers.dense({ units: 10, activation: 'softmax', kernelInitializer: start(2, 0.3) }),
  ];
  return tf.sequential({ layers });
}

/** Digits of 7 × 7 pixels in one pass, without and with gradients: what an ensemble can do on a classification. */
export async function ensembleDigits(quick: boolean, seed: number, figures: Figures): Promise<string[][]> {
  const { train: all, test } = await anyDigits();
  const data = small(slice(all, 0, EXAMPLES));
  const held = small(quick ? slice(test, 0, 2000) : test);
  const rows = [[`${all.name}, 7 × 7, one pass over ${EXAMPLES}`, 'accuracy', 's']];
  const add = (key: string, title: string, accuracy: number, seconds: number): void => {
    figures[`digits.${key}.accuracy`] = round(accuracy);
    figures[`digits.${key}.seconds`] = round(seconds, 3);
    rows.push([title, `${(100 * accuracy).toFixed(2)} %`, seconds.toFixed(2)]);
  };
  const model = network(seed);
  const method = enkf({ members: MEMBERS, observationNoise: 0.3, spread: 0.3 });
  const run = { epochs: 1, batchSize: 8, seed, progress: false } as const;
  const report = await train(model, data, { methods: [method], optimizer: [], ...run });
  add('enkf', `EnKF, J = ${MEMBERS}`, evaluate(model, held).accuracy ?? 0, report.seconds);
  model.dispose();
  let best = { accuracy: 0, seconds: 0 };
  for (const learningRate of RATES) {
    const rival = network(seed);
    const { seconds } = await train(rival, data, { optimizer: sgd({ learningRate }), ...run });
    const accuracy = evaluate(rival, held).accuracy ?? 0;
    if (accuracy > best.accuracy) best = { accuracy, seconds };
    rival.dispose();
  }
  add('sgd', 'SGD, best rate', best.accuracy, best.seconds);
  return rows;
}
