import {
  attach,
  clockAt,
  FrugalError,
  type Loss,
  type Method,
  openScope,
  type Site,
  stepper,
  stream,
} from '@frugal/core';
import {
  describeEngines,
  expectNoLeak,
  relativeError,
  toyImages,
  toyModel,
  toySgd,
  weightsOf,
} from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { dfa, type DfaOptions } from './dfa.js';
import { errorObserver, errorOf, valuesPerError } from './error.js';
import { bdfa, cdfa, feedbackAlignment, signSymmetry } from './index.js';
import { descent, gradients, methodOf, mlp, taught, trained, uniformMatrix } from './testing/models.js';

const halfSquares: Loss = {
  name: 'halfSquares',
  logits: false,
  compute: (outputs, targets) => ({ loss: tf.mul(0.5, tf.sum(tf.squaredDifference(outputs, targets))) as tf.Scalar }),
};

const random = (shape: number[], path: string): tf.Tensor => {
  const draws = stream(11, path);
  return tf.tensor(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => draws.normal()),
    shape,
  );
};

await describeEngines('dfa', () => {
  it('has a closed form after two steps of a linear network that begins at zero', async () => {
    const model = mlp([3, 2, 2], 'linear', 'linear');
    model.setWeights(model.getWeights().map((weight) => tf.zerosLike(weight)));
    const rate = 0.25;
    const { step, dispose } = stepper(model, {
      methods: [dfa()],
      optimizer: descent(rate),
      loss: halfSquares,
      seed: 4,
    });
    const [xs, ys] = [tf.tensor2d([[1, 2, -1]]), tf.tensor2d([[2, -1]])];
    // One bias would move ŷ off zero: set back after the first step, so that the network stays without biases.
    await step({ xs, ys });
    for (const name of ['dense1', 'dense2']) {
      const [kernel, bias] = model.getLayer(name).getWeights() as [tf.Tensor, tf.Tensor];
      model.getLayer(name).setWeights([kernel, tf.zerosLike(bias)]);
    }
    // e = −y. After step 1: W1 = η xᵀ(y Bᵀ), W2 = 0.
    const b = uniformMatrix(4, 1, 2, 2);
    const yb = tf.matMul(ys, b, false, true);
    const [w1] = model.getLayer('dense1').getWeights() as [tf.Tensor];
    expect(relativeError(w1.dataSync(), tf.mul(tf.matMul(xs, yb, true), rate).dataSync())).toBeLessThan(1e-6);
    expect(Math.max(...model.getLayer('dense2').getWeights()[0]!.dataSync())).toBe(0);
    await step({ xs, ys });
    // h = η|x|² y Bᵀ and ŷ = 0 still, so W2 = η² |x|² (y Bᵀ)ᵀ y, |x|² = 6.
    const [w2] = model.getLayer('dense2').getWeights() as [tf.Tensor];
    const expected = tf.mul(tf.matMul(yb, ys, true), rate * rate * 6);
    expect(relativeError(w2.dataSync(), expected.dataSync())).toBeLessThan(1e-6);
    dispose();
  });

  it('is back-propagation where the matrices are the products of the weights and the network is linear', async () => {
    const data = taught(40, 8, 3);
    const step = { batchSize: 40 };
    const exact = await trained(mlp([8, 7, 6, 3], 'linear'), data, [], step);
    const fed = await trained(mlp([8, 7, 6, 3], 'linear'), data, [dfa({ feedback: 'forwardProduct' })], step);
    // The product of three matrices is taken in another order.
    fed.weights.forEach((w, i) => expect(relativeError(w, exact.weights[i]!)).toBeLessThan(1e-5));
    const other = await trained(mlp([8, 7, 6, 3], 'linear'), data, [dfa()], step);
    expect(relativeError(other.weights[0]!, exact.weights[0]!)).toBeGreaterThan(1e-3);
  });

  it('is back-propagation in the first step of one hidden layer of any activation, if B = W', async () => {
    const data = taught(40, 8, 3);
    for (const activation of ['tanh', 'relu'] as const) {
      const exact = await trained(mlp([8, 7, 3], activation), data, [], { batchSize: 40 });
      const fed = await trained(mlp([8, 7, 3], activation), data, [dfa({ feedback: 'forwardProduct' })], {
        batchSize: 40,
      });
      fed.weights.forEach((w, i) => expect(relativeError(w, exact.weights[i]!)).toBeLessThan(1e-6));
    }
  });

  it('lets nothing of the exact gradient through: lower gradients do not depend on upper weights', () => {
    const x = random([5, 6], 'x');
    const r = random([5, 3], 'r');
    const first = (methods: Method[], perturbed: boolean): number[] => {
      const model = mlp([6, 8, 7, 3], 'tanh', 'linear');
      if (perturbed) {
        for (const name of ['dense2', 'dense3']) {
          const layer = model.getLayer(name);
          layer.setWeights(layer.getWeights().map((weight) => tf.add(weight, 0.3)));
        }
      }
      // Linear in the outputs: e = R, whatever the weights.
      const loss = () => tf.sum(tf.mul(model.apply(x, { training: true }) as tf.Tensor, r)) as tf.Scalar;
      return [...gradients(model, methods, loss)[0]!];
    };
    expect(first([dfa()], true)).toEqual(first([dfa()], false));
    // The control: back-propagation does depend.
    expect(first([], true)).not.toEqual(first([], false));
  });

  it('goes through activation, normalisation, pooling, dropout and flatten as the tape does', () => {
    const x = random([6, 8, 8, 1], 'images');
    const r = random([6, 3], 'r');
    const model = toyModel(1, { batchNorm: true, dropout: 0.3 });
    const errors: tf.Tensor[] = [];
    const watch = methodOf({
      observer: {
        name: 'watch',
        onBackward: ({ site }, _x, dy) => {
          if (site.role === 'output') errors.push(tf.keep(tf.clone(dy)));
        },
      },
    });
    const names = model.trainableWeights.map((weight) => weight.originalName);
    const output = () => tf.sum(tf.mul(model.apply(x, { training: true }) as tf.Tensor, r)) as tf.Scalar;
    const fed = gradients(model, [dfa(), watch], output, 9);
    const e = errors[0] as tf.Tensor2D;
    // Sites: conv 0, conv2 1, hidden 2, head 3. What lies below x of a site has the gradient of Σ x∘(e·Bᵀ).
    const below = (index: number, top: string, m: number, shape: number[]): Float32Array[] => {
      const layer = model.getLayer(top);
      const part = tf.model({ inputs: model.inputs, outputs: layer.output as tf.SymbolicTensor });
      const signal = tf.reshape(tf.matMul(e, uniformMatrix(9, index, m, 3), false, true), shape);
      const loss = () => tf.sum(tf.mul(part.apply(x, { training: true }) as tf.Tensor, signal)) as tf.Scalar;
      // Opened as part of the whole model: the same masks of dropout.
      return gradients(model, [], loss, 9);
    };
    const at = (name: string): Float32Array => fed[names.indexOf(name)]!;
    const conv2Input = below(1, model.layers[3]!.name, 64, [6, 4, 4, 4]);
    const index = (name: string): number => names.indexOf(name);
    for (const name of ['conv/kernel', 'norm/gamma', 'norm/beta'])
      expect(relativeError(at(name), conv2Input[index(name)]!), name).toBeLessThan(1e-4);
    const hiddenInput = below(2, model.layers[5]!.name, 48, [6, 48]);
    expect(relativeError(at('conv2/kernel'), hiddenInput[index('conv2/kernel')]!)).toBeLessThan(1e-5);
    const headInput = below(3, 'hidden', 24, [6, 24]);
    expect(relativeError(at('hidden/kernel'), headInput[index('hidden/kernel')]!)).toBeLessThan(1e-5);
    // The output layer has its exact gradient.
    const exact = gradients(model, [], output, 9);
    expect(relativeError(at('head/kernel'), exact[names.indexOf('head/kernel')]!)).toBeLessThan(1e-6);
    expect(relativeError(at('hidden/kernel'), exact[names.indexOf('hidden/kernel')]!)).toBeGreaterThan(0.1);
    tf.dispose(errors);
  });

  it.each([
    ['dfa', () => dfa()],
    ['dfa, gaussian, shared', () => dfa({ feedback: 'gaussian', shared: true })],
    ['cdfa', () => cdfa()],
    ['cdfa, direct', () => cdfa({ boundary: 'direct' })],
    ['cdfa, forwardProduct', () => cdfa({ feedback: 'forwardProduct' })],
    ['bdfa', () => bdfa()],
    ['bdfa, none, shared', () => bdfa({ boundary: 'none', shared: true })],
    ['signSymmetry', () => signSymmetry()],
    ['feedbackAlignment', () => feedbackAlignment()],
  ] as const)(
    '%s trains in `train` and in `fit`, gives the same bits again and leaves no tensor',
    async (_title, make) => {
      const data = toyImages(48);
      const build = () => toyModel(1, { batchNorm: true, dropout: 0.2 });
      const once = async () => {
        const model = build();
        const { weights, report } = await trained(model, data, [make()], { epochs: 2, batchSize: 12 });
        model.dispose();
        return { weights, report };
      };
      await once();
      const first = await expectNoLeak(once);
      const second = await once();
      expect(second.weights).toEqual(first.weights);
      expect(first.report.epochs.every(({ loss }) => Number.isFinite(loss))).toBe(true);
      const plain = build();
      const exact = await trained(plain, data, [], { epochs: 2, batchSize: 12 });
      expect(first.weights).not.toEqual(exact.weights);
      plain.dispose();
      const model = build();
      const before = weightsOf(model);
      const attachment = attach(model, make());
      const optimizer = attachment.optimizer(toySgd(0.05));
      model.compile({ optimizer, loss: 'categoricalCrossentropy' });
      const [xs, ys] = [
        random([12, 8, 8, 1], 'fit'),
        tf.oneHot(tf.tensor1d([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2], 'int32'), 3),
      ];
      await model.fit(xs, ys, { epochs: 1, batchSize: 6, verbose: 0 });
      await expectNoLeak(() => model.fit(xs, ys, { epochs: 2, batchSize: 6, verbose: 0 }));
      expect(weightsOf(model)).not.toEqual(before);
      expect(weightsOf(model).every(Number.isFinite)).toBe(true);
      attachment.detach();
      optimizer.dispose();
      model.dispose();
      tf.dispose([xs, ys]);
    },
  );
});

describe('dfa', () => {
  it('reports memory and arithmetic', async () => {
    const method = dfa({ measureEvery: 1 });
    const seen: number[] = [];
    const watched = dfa({ scale: 2, measureEvery: 2, onMeasure: ({ step }) => void seen.push(step) });
    const data = taught(40, 8, 3);
    const report = (await trained(mlp([8, 7, 6, 3], 'tanh'), data, [method])).report.of(method);
    // Two steps of 20 examples. Matrices [7, 3] and [6, 3]; gain 1/√m scales e: 20·3 multiplications more.
    expect(report.bytes).toBe(4 * (21 + 18));
    expect(report.floatBytes).toBe(report.bytes);
    expect(report.sites.map(({ site, multiplies, additions }) => [site, multiplies, additions])).toEqual([
      ['dense2', 2 * (20 * 21 + 60), 2 * 20 * 14],
      ['dense3', 2 * (20 * 18 + 60), 2 * 20 * 12],
    ]);
    expect(report.sites.every(({ cosine }) => cosine !== undefined && Math.abs(cosine) <= 1)).toBe(true);
    const { report: run } = await trained(mlp([8, 7, 6, 3], 'tanh'), data, [watched], { epochs: 2 });
    expect(seen).toEqual([0, 0, 2, 2]);
    // Without measuring steps: dX of dense2 takes 20·7·3 in place of 20·7·6.
    const silent = dfa({ onMeasure: () => expect.fail('measured') });
    const plain = await trained(mlp([8, 7, 6, 3], 'tanh'), data, [silent]);
    expect(plain.report.of(silent).sites.map(({ cosine }) => cosine)).toEqual([undefined, undefined]);
    const site = plain.report.sites[1]!;
    expect(site.exact - site.done).toBe(2 * 20 * 7 * 3);
    expect(run.sites[1]!.rule).toBe('dfa');
  });

  it('stores a shared matrix once, of which each layer takes the first rows', async () => {
    const method = dfa({ shared: true });
    const { report } = await trained(mlp([8, 7, 6, 3], 'tanh'), taught(40, 8, 3), [method]);
    expect(report.of(method).bytes).toBe(4 * 21);
    expect(report.of(method).floatBytes).toBe(4 * (21 + 18));
  });

  it('measures a cosine of 1 where the matrix is the weight', async () => {
    const cosines: number[] = [];
    const method = dfa({
      feedback: 'forwardProduct',
      measureEvery: 100,
      onMeasure: ({ cosine }) => void cosines.push(cosine),
    });
    await trained(mlp([8, 7, 3], 'tanh'), taught(40, 8, 3), [method]);
    expect(cosines).toHaveLength(1);
    expect(cosines[0]).toBeCloseTo(1, 6);
  });

  it('leaves skipped sites exact, and scales each site by itself', () => {
    const x = random([5, 6], 'x');
    const run = (method: Method): Float32Array[] => {
      const model = mlp([6, 8, 7, 3], 'linear', 'linear');
      return gradients(
        model,
        [method],
        () => tf.sum(tf.square(model.apply(x, { training: true }) as tf.Tensor)) as tf.Scalar,
      );
    };
    const one = run(dfa());
    const scaled = run(dfa({ scale: ({ name }) => (name === 'dense2' ? 3 : 1) }));
    expect(
      relativeError(
        scaled[0]!,
        one[0]!.map((v) => 3 * v),
      ),
    ).toBeLessThan(1e-6);
    expect(scaled[2]).toEqual(one[2]);
    const skipped = run(dfa({ skip: () => true }));
    const exact = run(methodOf());
    expect(skipped).toEqual(exact);
  });

  it('refuses wrong options, and says what was expected', () => {
    const refusal = (make: () => unknown): string => {
      try {
        make();
      } catch (error) {
        expect(FrugalError.is(error, 'CONFIG')).toBe(true);
        return (error as Error).message;
      }
      return 'accepted';
    };
    expect(refusal(() => dfa({ feedbak: 'uniform' } as DfaOptions))).toContain('dfa: expected options among skip');
    expect(refusal(() => dfa({ feedback: 'normal' as 'uniform' }))).toContain(
      "one of 'uniform', 'gaussian', 'forwardProduct'",
    );
    expect(refusal(() => dfa({ scale: Number.NaN }))).toContain('dfa: expected scale');
    expect(refusal(() => dfa({ measureEvery: 0 }))).toContain('dfa: expected measureEvery');
    expect(refusal(() => dfa({ feedback: 'forwardProduct', shared: true }))).toContain('neither shared nor skip');
    expect(refusal(() => cdfa({ boundary: 'none' as 'direct' }))).toContain("one of 'direct', 'chained'");
    expect(refusal(() => bdfa({ boundary: 'both' as 'none' }))).toContain('bdfa: expected boundary');
    expect(refusal(() => bdfa({ scale: Infinity }))).toContain('bdfa: expected scale');
    expect(refusal(() => signSymmetry({ scale: Number.NaN }))).toContain('signSymmetry: expected scale');
    expect(refusal(() => feedbackAlignment({ seed: 1 } as object))).toContain('feedbackAlignment: expected options');
  });

  it('refuses products of weights where there is no chain of dense layers', async () => {
    const product = () => dfa({ feedback: 'forwardProduct' });
    await expect(trained(toyModel(1), toyImages(12), [product()])).rejects.toThrow(/conv2? is a convolution/);
  });

  it('refuses to share a product with another rule', () => {
    const conflict = (): unknown => attach(mlp([4, 3, 2], 'tanh'), dfa(), signSymmetry());
    expect(conflict).toThrow(/Both dfa and signSymmetry replace the product inputGrad at site dense1/);
    const model = mlp([4, 3, 2], 'tanh');
    const skip = ({ name }: Site): boolean => name === 'dense2';
    attach(model, dfa({ skip }), signSymmetry({ skip: (site) => !skip(site) })).detach();
  });

  it('refuses two outputs, and an error that does not fit', () => {
    const observer = errorObserver('dfa');
    const scope = openScope(clockAt(0), 0);
    const dy = tf.zeros([2, 3]);
    const call = (name: string) =>
      ({ site: { name, role: 'output' }, scope }) as Parameters<typeof observer.onBackward>[0];
    observer.onBackward(call('a'), dy, dy);
    expect(() => observer.onBackward(call('b'), dy, dy)).toThrow(/one output site/);
    const e = tf.zeros([4, 3]) as tf.Tensor2D;
    const site = { name: 'a' } as Site;
    expect(valuesPerError('dfa', site, e, [8, 5])).toBe(10);
    expect(() => valuesPerError('dfa', site, e, [6, 5])).toThrow(/multiple of 4 rows/);
    expect(() => errorOf('dfa', site, openScope(clockAt(0), 0))).toThrow(/met none/);
  });
});
