import { type Dataset, stream } from '@frugal/core';
import { toySgd } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';

/** Plain gradient descent: the optim package is not a dependency of this one. */
export const descent = toySgd(0.1, 0);

/** Random inputs of this shape and labels of three classes. */
export function makeData(length: number, shape: readonly number[]): Dataset {
  const random = stream(5, 'data');
  const size = shape.reduce((a, b) => a * b, 1);
  return {
    name: 'noise',
    origin: 'made by the test',
    length,
    shape,
    inputs: Float32Array.from({ length: length * size }, () => random.normal()),
    targets: Uint8Array.from({ length }, () => random.below(3)),
    classes: ['a', 'b', 'c'],
  };
}

const init = (seed: number) => tf.initializers.glorotUniform({ seed });

/** A dense layer with seeded weights. */
export const dense = (name: string, units: number, options: object = {}): tf.layers.Layer =>
  tf.layers.dense({ name, units, kernelInitializer: init(name.length + units), ...options });

/** 24 → 20 → 16 → 3, dense. */
export function mlp(): tf.LayersModel {
  return tf.sequential({
    layers: [
      dense('first', 20, { inputShape: [24], activation: 'relu' }),
      dense('second', 16, { activation: 'relu' }),
      dense('last', 3),
    ],
  });
}

/** Two convolutions of 12 channels on 4 × 4 × 12 images, and a dense head. */
export function cnn(): tf.LayersModel {
  const conv = (name: string, options: object): tf.layers.Layer =>
    tf.layers.conv2d({
      name,
      filters: 12,
      kernelSize: 2,
      activation: 'relu',
      kernelInitializer: init(name.length),
      ...options,
    });
  return tf.sequential({
    layers: [
      conv('one', { inputShape: [4, 4, 12], padding: 'same' }),
      conv('three', { strides: 2, padding: 'valid' }),
      tf.layers.flatten({ name: 'flat' }),
      dense('last', 3),
    ],
  });
}

/** The values of all weights. */
export const weightsOf = (model: tf.LayersModel): Float32Array[] =>
  model.getWeights().map((weight) => weight.dataSync() as Float32Array);
