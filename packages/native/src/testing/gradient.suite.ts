import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { registerNative } from '../index.js';
import { expectSame, random } from './compare.js';

/** The gradients that are wrapped, and a training step through TensorFlow.js. */
export function gradients(): void {
  it('Relu, Sum and Mean have the gradients of the cpu backend', () => {
    const functions: ((x: tf.Tensor) => tf.Tensor)[] = [
      (x) => tf.relu(x).square().sum(),
      (x) => x.sum(1).square().sum(),
      (x) => x.sum([0, 1], true).square().sum(),
      (x) => x.mean([1, 2]).square().sum(),
      (x) => x.mean().square(),
      (x) => tf.relu(x.mean(-1, true)).sum(),
    ];
    for (const f of functions) expectSame(() => tf.grad(f)(random([4, 5, 6], 1)));
  });
  it('uses the stock gradient for axes that are apart', () => {
    expectSame(() => tf.grad((x) => x.sum([0, 2]).square().sum())(random([4, 5, 6], 1)));
  });
  it('has second derivatives', () => {
    const second = (f: (x: tf.Tensor) => tf.Tensor) => tf.grad((x) => tf.grad(f)(x).square().sum());
    expectSame(() => second((x) => tf.relu(x).pow(3).sum())(random([3, 4], 1)), {
      fallbacks: expect.anything() as never,
    });
    expectSame(() => second((x) => x.mean(0).pow(3).sum())(random([3, 4], 1)), {
      fallbacks: expect.anything() as never,
    });
  });
  describe('a training step', () => {
    const step = (): tf.Tensor[] => {
      const [x, labels] = [random([8, 8, 8, 3], 1), tf.softmax(random([8, 10], 2))];
      const loss = (...[filter, bias, w]: tf.Tensor[]): tf.Tensor => {
        const convolved = tf.relu(tf.add(tf.conv2d(x as tf.Tensor4D, filter as tf.Tensor4D, 1, 'same'), bias!));
        const pooled = tf.maxPool(convolved as tf.Tensor4D, 2, 2, 'valid');
        const logits = tf.matMul(pooled.reshape([8, -1]), w!);
        return tf.mean(tf.neg(tf.sum(tf.mul(labels, tf.log(tf.softmax(logits))), -1)));
      };
      const { value, grads } = tf.valueAndGrads(loss)([random([3, 3, 3, 8], 3), random([8], 4), random([128, 10], 5)]);
      return [value, ...grads];
    };
    it('is that of the cpu backend', () => expectSame(step, { tolerance: 2e-5 }));
    it('allocates nothing new and leaks nothing', () => {
      void tf.setBackend('native');
      const engine = registerNative();
      const run = (): void => {
        tf.dispose(tf.tidy(step));
      };
      run();
      const tensors = tf.memory().numTensors;
      engine.resetCounters();
      for (let i = 0; i < 3; i++) run();
      expect(engine.counters()).toMatchObject({ fallbacks: {}, newBuffers: 0, newBytes: 0 });
      expect(tf.memory().numTensors).toBe(tensors);
    });
  });
}
