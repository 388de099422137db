import { FrugalError, stream } from '@frugal/core';
import { relativeError, toyImages, toyModel } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { bdfa } from './bdfa.js';
import { packSigns } from './bits.js';
import { gradients, mlp, taught, trained, uniformMatrix } from './testing/models.js';

describe('signs', () => {
  it('are packed row by row, 32 to a word', () => {
    // By hand, [4, 2]: the first column is + − + +, 1101 from the lowest bit, 13; the second − + + −, 0110, 6.
    const signs = [1, -1, -1, 1, 1, 1, 1, -1];
    expect([...packSigns(4, 2, () => signs.shift()!)]).toEqual([13, 6]);
    const random = stream(2, 'signs');
    const values = Float32Array.from({ length: 40 * 3 }, () => random.normal());
    let i = 0;
    const bits = packSigns(40, 3, () => values[i++]!);
    expect(bits).toHaveLength(3 * 2);
    for (let j = 0; j < 40; j++)
      for (let k = 0; k < 3; k++)
        expect((bits[2 * k + (j >> 5)]! >>> (j & 31)) & 1).toBe(values[3 * j + k]! >= 0 ? 1 : 0);
  });

  it('are fair: half are positive, and E|U| is 1/2', () => {
    const random = stream(3, 'fair');
    const n = 100_000;
    const values = Float32Array.from({ length: n }, () => 2 * random.next() - 1);
    const positive = values.filter((v) => v >= 0).length;
    // Four standard deviations: √n/2 for the count, 1/√(12 n) for the mean of |U|.
    expect(Math.abs(positive - n / 2)).toBeLessThan(2 * Math.sqrt(n));
    expect(Math.abs(values.reduce((a, v) => a + Math.abs(v), 0) / n - 0.5)).toBeLessThan(4 / Math.sqrt(12 * n));
  });
});

describe('bdfa', () => {
  it.each(['mean', 1, 0.25] as const)('with scale %s is dfa with s·sign(B)', (scale) => {
    const model = mlp([6, 8, 3], 'tanh', 'linear');
    const draws = stream(11, 'x');
    const x = tf.tensor2d(
      Float32Array.from({ length: 30 }, () => draws.normal()),
      [5, 6],
    );
    const r = tf.tensor2d(
      Float32Array.from({ length: 15 }, () => draws.normal()),
      [5, 3],
    );
    const loss = () => tf.sum(tf.mul(model.apply(x, { training: true }) as tf.Tensor, r)) as tf.Scalar;
    const [dw] = gradients(model, [bdfa({ scale })], loss, 5);
    // m = 8, e = R: dW1 = xᵀ((s·R·sign(B)ᵀ)∘(1 − h²)).
    const s = scale === 'mean' ? 0.5 / Math.sqrt(8) : scale;
    const signal = tf.mul(tf.matMul(r, tf.sign(uniformMatrix(5, 1, 8, 3)), false, true), s);
    const h = tf.tanh(tf.matMul(x, model.getLayer('dense1').getWeights()[0] as tf.Tensor2D));
    const expected = tf.matMul(x, tf.mul(signal, tf.sub(1, tf.square(h))) as tf.Tensor2D, true);
    expect(relativeError(dw!, expected.dataSync())).toBeLessThan(1e-5);
  });

  it('stores 1/32 of the floats and asks for no multiplication but the scaling of e', async () => {
    const data = taught(40, 8, 4);
    const reportOf = async (method: ReturnType<typeof bdfa>) =>
      (await trained(mlp([8, 64, 32, 4], 'tanh'), data, [method])).report.of(method);
    const report = await reportOf(bdfa());
    const plain = await reportOf(bdfa({ scale: 1 }));
    expect(report.floatBytes).toBe(4 * 4 * (64 + 32));
    expect(report.bytes).toBe(report.floatBytes / 32);
    expect(report.multiplies).toBe(2 * 2 * 20 * 4);
    expect(plain.multiplies).toBe(0);
    expect(plain.additions).toBe(2 * 20 * 3 * (64 + 32));
    // The first term of each of the N·m sums is added to nothing.
    expect(report.additions).toBe(plain.additions);
    // The attachment counts an addition as a multiply-add, and the convolutions too: N·C·m for each dX.
    const every = bdfa({ boundary: 'none' });
    const { report: run } = await trained(toyModel(1), toyImages(24), [every], { batchSize: 12 });
    const exact = (await trained(toyModel(1), toyImages(24), [])).report;
    const dx = run.sites.map(({ done }, i) => done - (2 * exact.sites[i]!.exact) / 3);
    // conv has no dX; x of conv2 has 4·4·4 values, of hidden 48, of head 24.
    expect(dx.slice(1)).toEqual([64, 48, 24].map((m) => 24 * 3 * m));
  });

  it('refuses a scale that is no number at the site that gives it', async () => {
    const method = bdfa({ scale: () => Number.NaN });
    await expect(trained(mlp([8, 6, 3], 'tanh'), taught(20, 8, 3), [method])).rejects.toSatisfy((error) =>
      FrugalError.is(error, 'CONFIG'),
    );
  });
});
