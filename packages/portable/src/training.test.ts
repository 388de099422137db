import * as tf from '@tensorflow/tfjs';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { PortableEngine } from './index.js';
import { registerPortable } from './index.js';
import { against, normal } from './testing.js';

let engine: PortableEngine;

beforeAll(async () => {
  engine = await registerPortable();
});

afterEach(() => {
  engine.resetCounters();
});

const { layers } = tf;
const glorot = (seed: number) => tf.initializers.glorotUniform({ seed });

const cnn = (dropout: number): tf.Sequential =>
  tf.sequential({
    layers: [
      layers.conv2d({
        inputShape: [12, 12, 2],
        filters: 6,
        kernelSize: 3,
        padding: 'same',
        activation: 'relu',
        kernelInitializer: glorot(1),
      }),
      layers.batchNormalization(),
      layers.conv2d({
        filters: 8,
        kernelSize: 3,
        strides: 2,
        padding: 'same',
        activation: 'elu',
        kernelInitializer: glorot(2),
      }),
      layers.maxPooling2d({ poolSize: 2 }),
      layers.flatten(),
      layers.dense({ units: 16, activation: 'relu', kernelInitializer: glorot(3) }),
      layers.dropout({ rate: dropout, seed: 5 }),
      layers.dense({ units: 2, activation: 'softmax', kernelInitializer: glorot(4) }),
    ],
  });

const recurrent = (): tf.Sequential =>
  tf.sequential({
    layers: [
      layers.embedding({ inputDim: 20, outputDim: 6, inputLength: 7, embeddingsInitializer: glorot(1) }),
      layers.lstm({ units: 8, kernelInitializer: glorot(2), recurrentInitializer: glorot(3) }),
      layers.dense({ units: 2, activation: 'softmax', kernelInitializer: glorot(4) }),
    ],
  });

const images = (): tf.Tensor => normal([32, 12, 12, 2], 9);
const words = (): tf.Tensor => tf.randomUniform([32, 7], 0, 20, 'int32', 3).toFloat();
const oneHot = (classes: tf.Tensor1D): tf.Tensor => tf.oneHot(classes.toInt(), 2).toFloat();
const classesOf = (x: tf.Tensor): tf.Tensor => {
  const means = x.reshape([32, -1]).mean(1);
  return oneHot(means.greater(means.mean()) as tf.Tensor1D);
};

/** Fits twice; the first and last loss, and the tensors that the second fit added. */
async function fitted(
  model: tf.Sequential,
  input: () => tf.Tensor,
  optimizer: tf.Optimizer = tf.train.momentum(0.05, 0.9),
): Promise<{ first: number; last: number; grown: number }> {
  model.compile({ optimizer, loss: 'categoricalCrossentropy' });
  const x = input();
  const y = tf.tidy(() => classesOf(x));
  const options = { epochs: 15, batchSize: 16, verbose: 0, shuffle: false } as const;
  const start = await model.fit(x, y, options);
  const before = tf.memory().numTensors;
  const end = await model.fit(x, y, options);
  const grown = tf.memory().numTensors - before;
  tf.dispose([x, y]);
  model.dispose();
  return { first: start.history['loss']![0] as number, last: end.history['loss']!.at(-1) as number, grown };
}

describe('model.fit', () => {
  it('trains convolutions, pooling, batch normalisation and dropout without a fallback', async () => {
    await tf.setBackend(engine.backend);
    const { first, last, grown } = await fitted(cnn(0.2), images);
    expect(last).toBeLessThan(0.5 * first);
    expect(grown).toBe(0);
    expect(engine.counters().fallbacks).toEqual({});
  });

  it('trains an embedding and an LSTM without a fallback', async () => {
    await tf.setBackend(engine.backend);
    const { first, last, grown } = await fitted(recurrent(), words, tf.train.adam(0.02));
    expect(last).toBeLessThan(0.8 * first);
    expect(grown).toBe(0);
    expect(engine.counters().fallbacks).toEqual({});
  });

  it('trains a depthwise network, with its fallbacks counted', async () => {
    await tf.setBackend(engine.backend);
    const model = tf.sequential({
      layers: [
        layers.separableConv2d({
          inputShape: [12, 12, 2],
          filters: 4,
          kernelSize: 3,
          activation: 'relu',
          depthwiseInitializer: glorot(1),
          pointwiseInitializer: glorot(2),
        }),
        layers.averagePooling2d({ poolSize: 2 }),
        layers.conv2dTranspose({ filters: 3, kernelSize: 3, strides: 2, kernelInitializer: glorot(5) }),
        layers.flatten(),
        layers.dense({ units: 2, activation: 'softmax', kernelInitializer: glorot(4) }),
      ],
    });
    const { first, last, grown } = await fitted(model, images);
    expect(last).toBeLessThan(0.8 * first);
    expect(grown).toBe(0);
    expect(Object.keys(engine.counters().fallbacks)).toContain('DepthwiseConv2dNativeBackpropFilter');
  });
});

describe('gradients of whole models', () => {
  // Errors of single kernels (1e-6) add up over the layers; 1e-4 still tells every wrong kernel.
  const THROUGH_LAYERS = 1e-4;

  const gradients = (model: () => tf.Sequential, input: () => tf.Tensor) => () => {
    const net = model();
    const x = input();
    const y = classesOf(x);
    const loss = () => tf.losses.softmaxCrossEntropy(y, net.apply(x, { training: true }) as tf.Tensor) as tf.Scalar;
    const { grads } = tf.variableGrads(loss);
    const list = net.trainableWeights.map((w) => {
      const grad = grads[(w.read() as unknown as tf.Variable).name] as tf.Tensor;
      // A bias before batch normalisation has gradient 0, where only rounding is left to compare: 1 is added.
      return grad.add(1);
    });
    // The variables stay alive in tidy: they are dropped with their model.
    net.dispose();
    return list;
  };

  it('equal cpu for the convolutional network', async () => {
    expect(await against(gradients(() => cnn(0), images))).toBeLessThan(THROUGH_LAYERS);
  });

  it('equal cpu for the recurrent network', async () => {
    expect(await against(gradients(recurrent, words))).toBeLessThan(THROUGH_LAYERS);
  });
});
