import * as tf from '@tensorflow/tfjs';
import { checkInteger, checkOptions, FrugalError } from '@frugal/core';
import { glorotUniform, heNormal } from './init.js';
import { checkShape } from './shape.js';

/** Shape and start of a {@link resnet20}. */
export interface Resnet20Options {
  /** Height, width and channels of an image. Default [32, 32, 3]. */
  readonly inputShape?: readonly number[];
  /** Number of classes. Default 10. */
  readonly classes?: number;
  /** Seed of the weights. Default 1. */
  readonly seed?: number;
}

/** Shape and start of a {@link resnet}. */
export interface ResnetOptions extends Resnet20Options {
  /** Number of layers with weights on the longest path without projections: 6n + 2. Default 20. */
  readonly depth?: 20 | 32 | 44 | 56 | 110;
}

const DEPTHS: readonly number[] = [20, 32, 44, 56, 110];

/** A 3 × 3 or 1 × 1 convolution without bias, then batch normalisation. */
function convNorm(
  x: tf.SymbolicTensor,
  name: string,
  filters: number,
  kernelSize: 1 | 3,
  strides: 1 | 2,
  seed: number,
): tf.SymbolicTensor {
  const kernelInitializer = heNormal(seed, name);
  const conv = tf.layers.conv2d({
    name,
    filters,
    kernelSize,
    strides,
    padding: 'same',
    useBias: false,
    kernelInitializer,
  });
  const norm = tf.layers.batchNormalization({ name: `${name}_norm`, epsilon: 1e-5, momentum: 0.9 });
  return norm.apply(conv.apply(x)) as tf.SymbolicTensor;
}

const relu = (x: tf.SymbolicTensor, name: string): tf.SymbolicTensor =>
  tf.layers.activation({ activation: 'relu', name }).apply(x) as tf.SymbolicTensor;

/** relu(F(x) + shortcut(x)); the shortcut is a projection where the size changes. */
function block(x: tf.SymbolicTensor, name: string, filters: number, strides: 1 | 2, seed: number): tf.SymbolicTensor {
  const first = relu(convNorm(x, `${name}_conv1`, filters, 3, strides, seed), `${name}_relu1`);
  const second = convNorm(first, `${name}_conv2`, filters, 3, 1, seed);
  const shortcut = strides === 1 ? x : convNorm(x, `${name}_project`, filters, 1, strides, seed);
  const sum = tf.layers.add({ name: `${name}_add` }).apply([second, shortcut]) as tf.SymbolicTensor;
  return relu(sum, `${name}_relu2`);
}

/**
 * A residual network for small images (He, Zhang, Ren and Sun 2016, arXiv:1512.03385, section 4.2): a 3 × 3 convolution
 * to 16 channels; three stages of (depth − 2) / 6 blocks with 16, 32 and 64 channels, the second and third halving
 * height and width; the mean over all places; dense softmax. Convolutions have no bias; each is followed by batch
 * normalisation (epsilon 1e-5, momentum 0.9). Where the size changes, the shortcut is a 1 × 1 convolution of stride 2
 * with batch normalisation (the paper's option B; its CIFAR results use option A, zero-padded identity, which has no
 * parameters).
 *
 * [N, 32, 32, 3] → [N, classes]. Layers `conv1`, `conv1_norm`, `conv1_relu`, `stage1_block1_conv1` …, `pool`, `output`.
 * Weights of convolutions are He-normal (variance 2 / fan-in), the last ones Glorot-uniform.
 *
 * @throws FrugalError `CONFIG` for a wrong option
 */
export function resnet(options: ResnetOptions = {}): tf.LayersModel {
  checkOptions('resnet', options, ['depth', 'inputShape', 'classes', 'seed']);
  const depth = options.depth ?? 20;
  if (!DEPTHS.includes(depth)) {
    throw new FrugalError('CONFIG', `resnet: expected depth to be one of ${DEPTHS.join(', ')} but received ${depth}.`);
  }
  const shape = checkShape('resnet', options.inputShape ?? [32, 32, 3], 3);
  const classes = checkInteger('resnet', 'classes', options.classes ?? 10, { min: 2 });
  const seed = checkInteger('resnet', 'seed', options.seed ?? 1);
  const inputs = tf.input({ shape, name: 'input' });
  let x = relu(convNorm(inputs, 'conv1', 16, 3, 1, seed), 'conv1_relu');
  for (const stage of [1, 2, 3]) {
    for (let i = 1; i <= (depth - 2) / 6; i++) {
      x = block(x, `stage${stage}_block${i}`, 8 * 2 ** stage, stage > 1 && i === 1 ? 2 : 1, seed);
    }
  }
  const pooled = tf.layers.globalAveragePooling2d({ name: 'pool' }).apply(x) as tf.SymbolicTensor;
  const kernelInitializer = glorotUniform(seed, 'output');
  const output = tf.layers.dense({ units: classes, activation: 'softmax', kernelInitializer, name: 'output' });
  return tf.model({ inputs, outputs: output.apply(pooled) as tf.SymbolicTensor, name: `resnet${depth}` });
}

/**
 * The {@link resnet} of depth 20: [N, 32, 32, 3] → [N, 10], 274,042 parameters, of which 272,474 are trained (the rest
 * are running means and variances).
 *
 * @throws FrugalError `CONFIG` for a wrong option
 */
export function resnet20(options: Resnet20Options = {}): tf.LayersModel {
  checkOptions('resnet20', options, ['inputShape', 'classes', 'seed']);
  return resnet({ ...options, depth: 20 });
}
