import type { Method } from '@frugal/core';
import { relativeError, toyModel } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { bdfa } from './bdfa.js';
import { cdfa } from './cdfa.js';
import { dfa } from './dfa.js';
import { feedbackAlignment } from './feedback-alignment.js';
import { signSymmetry } from './sign-symmetry.js';
import { gradients, mlp, uniformMatrix } from './testing/models.js';

/** The stock tape's gradients, without any site: of Σ part(x)∘signal by the part's weights. */
const stock = (part: tf.LayersModel, x: tf.Tensor, signal: tf.Tensor): Float32Array[] => {
  const variables = part.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const { grads } = tf.variableGrads(
    () => tf.sum(tf.mul(part.apply(x, { training: true }) as tf.Tensor, signal)) as tf.Scalar,
    variables,
  );
  return variables.map(({ name }) => Float32Array.from(grads[name]!.dataSync()));
};

const setup = () => {
  const model = toyModel(1);
  const last = model.getLayer('head') as unknown as { activation: unknown };
  last.activation = (mlp([2, 2], 'linear', 'linear').layers[0] as unknown as { activation: unknown }).activation;
  const x = tf.randomNormal([6, 8, 8, 1], 0, 1, 'float32', 3);
  const r = tf.randomNormal([6, 3], 0, 1, 'float32', 4) as tf.Tensor2D;
  // Linear in the outputs, so that e = R.
  const loss = () => tf.sum(tf.mul(model.apply(x, { training: true }) as tf.Tensor, r)) as tf.Scalar;
  const of = (...methods: Method[]): Float32Array[] => gradients(model, methods, loss, 2);
  const flat = model.layers.find((layer) => layer.getClassName() === 'Flatten') as tf.layers.Layer;
  const part = tf.model({ inputs: model.inputs, outputs: flat.output as tf.SymbolicTensor });
  const hidden = model.getLayer('hidden');
  return { model, x, r, of, part, hidden };
};

describe('cdfa', () => {
  it('direct: both convolutions have the gradient of back-propagation from e·B_0ᵀ', () => {
    const { x, r, of, part } = setup();
    const [dw1, , dw2] = of(cdfa({ boundary: 'direct' }));
    const signal = tf.matMul(r, uniformMatrix(2, 2, 48, 3), false, true);
    const [expected1, , expected2] = stock(part, x, signal);
    expect(relativeError(dw1!, expected1!)).toBeLessThan(1e-4);
    expect(relativeError(dw2!, expected2!)).toBeLessThan(1e-4);
    // Sent to the convolutions too, the feedback at conv2 makes another gradient of conv.
    expect(relativeError(of(dfa())[0]!, expected1!)).toBeGreaterThan(0.1);
  });

  it('chained: the convolutions have what W of the lowest dense layer makes of its fed-back dY', () => {
    const { x, r, of, part, hidden } = setup();
    const [dw1, , dw2] = of(cdfa());
    const h = tf.tanh(
      tf.add(
        tf.matMul(part.apply(x, { training: true }) as tf.Tensor2D, hidden.getWeights()[0] as tf.Tensor2D),
        hidden.getWeights()[1]!,
      ),
    );
    const dy = tf.mul(tf.matMul(r, uniformMatrix(2, 3, 24, 3), false, true), tf.sub(1, tf.square(h)));
    const signal = tf.matMul(dy as tf.Tensor2D, hidden.getWeights()[0] as tf.Tensor2D, false, true);
    const [expected1, , expected2] = stock(part, x, signal);
    expect(relativeError(dw1!, expected1!)).toBeLessThan(1e-4);
    expect(relativeError(dw2!, expected2!)).toBeLessThan(1e-4);
  });

  it.each<[string, () => Method, boolean]>([
    ['dfa', () => dfa(), true],
    ['bdfa at convolutions too', () => bdfa({ boundary: 'none' }), true],
    // The controls: these do hand on what the second convolution makes of it.
    ['cdfa', () => cdfa(), false],
    ['bdfa', () => bdfa(), false],
  ])('%s: is the first convolution cut off from the weights above it?', (_title, make, cut) => {
    const first = (perturbed: boolean): Float32Array => {
      const { model, of } = setup();
      for (const name of perturbed ? ['conv2', 'hidden', 'head'] : []) {
        const layer = model.getLayer(name);
        layer.setWeights(layer.getWeights().map((weight) => tf.add(weight, 0.3)));
      }
      return of(make())[0]!;
    };
    if (cut) expect(first(true)).toEqual(first(false));
    else expect(relativeError(first(true), first(false))).toBeGreaterThan(0.1);
  });

  it('lets other rules act at convolutions, and only there', () => {
    const { of } = setup();
    const convs = signSymmetry({ skip: ({ geometry }) => !geometry.slides });
    expect(of(cdfa(), convs)[0]).not.toEqual(of(cdfa())[0]);
    expect(() => of(cdfa(), feedbackAlignment())).toThrow(/Both cdfa and feedbackAlignment/);
  });
});

describe('rivals', () => {
  const build = () => {
    const model = mlp([5, 4, 3], 'linear', 'linear');
    const x = tf.randomNormal([6, 5], 0, 1, 'float32', 3) as tf.Tensor2D;
    const r = tf.randomNormal([6, 3], 0, 1, 'float32', 4) as tf.Tensor2D;
    const loss = () => tf.sum(tf.mul(model.apply(x, { training: true }) as tf.Tensor, r)) as tf.Scalar;
    const w = model.getLayer('dense2').getWeights()[0] as tf.Tensor2D;
    const expected = (v: tf.Tensor): ArrayLike<number> =>
      tf.matMul(x, tf.matMul(r, v as tf.Tensor2D, false, true), true).dataSync();
    return { of: (method: Method) => gradients(model, [method], loss, 2)[0]!, w, expected };
  };

  it('signSymmetry sends dY·s·sign(W)ᵀ', () => {
    const { of, w, expected } = build();
    expect(relativeError(of(signSymmetry({ scale: 0.5 })), expected(tf.mul(tf.sign(w), 0.5)))).toBeLessThan(1e-5);
    const mean = expected(tf.mul(tf.sign(w), tf.mean(tf.abs(w))));
    expect(relativeError(of(signSymmetry()), mean)).toBeLessThan(1e-5);
  });

  it('feedbackAlignment sends dY through one matrix of the shape of W, in proportion to its scale', () => {
    const { of } = build();
    const one = of(feedbackAlignment());
    expect(of(feedbackAlignment())).toEqual(one);
    expect(
      relativeError(
        of(feedbackAlignment({ scale: -2 })),
        one.map((v) => -2 * v),
      ),
    ).toBeLessThan(1e-5);
  });
});
