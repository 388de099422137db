import * as tf from '@tensorflow/tfjs';
import { checkInteger, checkOptions } from '@frugal/core';
import { glorotUniform } from './init.js';
import { checkShape } from './shape.js';

/** Shape and start of a {@link lenet}. */
export interface LenetOptions {
  /** Height, width and channels of an image. Default [28, 28, 1]. */
  readonly inputShape?: readonly number[];
  /** Number of classes. Default 10. */
  readonly classes?: number;
  /** Seed of the weights. Default 1. */
  readonly seed?: number;
}

/**
 * The small convolutional network of Adelman et al. (NeurIPS 2021, "Faster Neural Network Training with Approximate
 * Tensor Operations", MNIST CNN): 5 × 5 convolution to 32 channels, relu, 2 × 2 maximum, 5 × 5 convolution to 64, relu,
 * 2 × 2 maximum, dense 1024 with relu, dense softmax. [N, 28, 28, 1] → [N, 10]; 3,274,634 parameters.
 * Layers `conv1`, `pool1`, `conv2`, `pool2`, `flatten`, `dense1`, `output`. Convolutions keep the size (`same`).
 * Weights are Glorot-uniform, biases 0: He's larger variance, which the pooling of maxima doubles at each stage, makes the
 * first steps of plain SGD diverge.
 *
 * @throws FrugalError `CONFIG` for a wrong option
 */
export function lenet(options: LenetOptions = {}): tf.LayersModel {
  checkOptions('lenet', options, ['inputShape', 'classes', 'seed']);
  const shape = checkShape('lenet', options.inputShape ?? [28, 28, 1], 3);
  for (const axis of [0, 1]) checkInteger('lenet', `inputShape[${axis}]`, shape[axis], { min: 4 });
  const classes = checkInteger('lenet', 'classes', options.classes ?? 10, { min: 2 });
  const seed = checkInteger('lenet', 'seed', options.seed ?? 1);
  const conv = (name: string, filters: number): tf.layers.Layer =>
    tf.layers.conv2d({
      name,
      filters,
      kernelSize: 5,
      padding: 'same',
      activation: 'relu',
      kernelInitializer: glorotUniform(seed, name),
    });
  const layers = [
    conv('conv1', 32),
    tf.layers.maxPooling2d({ poolSize: 2, name: 'pool1' }),
    conv('conv2', 64),
    tf.layers.maxPooling2d({ poolSize: 2, name: 'pool2' }),
    tf.layers.flatten({ name: 'flatten' }),
    tf.layers.dense({
      units: 1024,
      activation: 'relu',
      kernelInitializer: glorotUniform(seed, 'dense1'),
      name: 'dense1',
    }),
    tf.layers.dense({
      units: classes,
      activation: 'softmax',
      kernelInitializer: glorotUniform(seed, 'output'),
      name: 'output',
    }),
  ];
  const inputs = tf.input({ shape, name: 'input' });
  const outputs = layers.reduce((x, layer) => layer.apply(x) as tf.SymbolicTensor, inputs);
  return tf.model({ inputs, outputs, name: 'lenet' });
}
