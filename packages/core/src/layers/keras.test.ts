import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { type BatchNormLayer, type DropoutLayer, leaves, type LinearLayer } from './keras.js';

/* The contract with the private side of TensorFlow.js layers. If this fails, another version is installed: fix keras.ts. */
describe('private fields of TensorFlow.js layers', () => {
  it('are those of version 4.22.0', () => {
    expect(tf.version_core).toBe('4.22.0');
    expect(tf.version_layers).toBe('4.22.0');
  });

  it('exist on the layers that Frugal reads', () => {
    const model = tf.sequential({
      layers: [
        tf.layers.conv2d({
          inputShape: [4, 4, 2],
          filters: 3,
          kernelSize: 3,
          strides: 2,
          padding: 'same',
          activation: 'relu',
        }),
        tf.layers.batchNormalization(),
        tf.layers.dropout({ rate: 0.25 }),
        tf.layers.flatten(),
        tf.layers.dense({ units: 2 }),
      ],
    });
    const [conv, norm, drop, , dense] = leaves(model).map(({ layer }) => layer);
    const c = conv as LinearLayer;
    expect(c.kernel!.read()).toBeInstanceOf(tf.Variable);
    expect(c.bias!.read()).toBeInstanceOf(tf.Variable);
    expect([c.strides, c.padding, c.dataFormat, c.dilationRate, c.activation!.getClassName()]).toEqual([
      [2, 2],
      'same',
      'channelsLast',
      [1, 1],
      'relu',
    ]);
    const n = norm as BatchNormLayer;
    for (const weight of [n.gamma!, n.beta!, n.movingMean, n.movingVariance])
      expect(weight.read()).toBeInstanceOf(tf.Variable);
    expect([n.axis, n.momentum, n.epsilon]).toEqual([-1, 0.99, 0.001]);
    expect((drop as DropoutLayer).rate).toBe(0.25);
    expect((dense as LinearLayer).activation!.getClassName()).toBe('linear');
  });

  it('pass `training` to call', () => {
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 1, inputShape: [1] })] });
    const seen: unknown[] = [];
    const { layer } = leaves(model)[0]!;
    const stock = layer.call.bind(layer);
    layer.call = (inputs, kwargs) => {
      seen.push(kwargs.training);
      return stock(inputs, kwargs);
    };
    tf.tidy(() => {
      model.apply(tf.ones([1, 1]), { training: true });
      model.apply(tf.ones([1, 1]), { training: false });
    });
    expect(seen).toEqual([true, false]);
  });
});
