import { expect, test } from 'vitest';
import { kfac, type KfacOptions, levenbergMarquardt } from './index.js';

const made = (options: object): (() => unknown) => {
  return () => kfac({ klClip: false, ...options } as KfacOptions);
};

test.each([
  [{ damping: 0 }, /damping in \(0, ∞\) but received 0/],
  [{ damping: 'two' }, /damping/],
  [{ decay: 1 }, /decay in \[0, 1\) but received 1/],
  [{ start: 'zeros' }, /start.*'batch'.*'identity'.*received "?zeros/],
  [{ factorEvery: 0 }, /factorEvery in \[1, ∞\) but received 0/],
  [{ inverseEvery: -1 }, /inverseEvery in \[1, ∞\) but received -1/],
  [{ klClip: 0, learningRate: 0.1 }, /klClip in \(0, ∞\) but received 0/],
  [{ klClip: 0.1, learningRate: -1 }, /learningRate in \[0, ∞\) but received -1/],
  [{ form: 'cholesky' }, /form.*'eigen'.*'inverse'.*received "?cholesky/],
  [{ fisher: 'true' }, /fisher.*'empirical'.*'sampled'.*received "?true/],
  [{ skip: 'head' }, /skip to be a function of a Site but received "?head/],
  [{ largest: 0.5 }, /largest.*but received 0.5/],
  [{ lossReduction: 'max' }, /lossReduction.*'mean'.*'sum'.*received "?max/],
  [{ overlap: 1 }, /overlap to be true or false but received 1/],
  [{ distribution: { strategy: 2 } }, /strategy.*received 2/],
  [{ gamma: 1 }, /received "gamma"/],
  [
    { damping: levenbergMarquardt(), distribution: {} },
    /schedule with distribution, .* one rank only. Pass a schedule/,
  ],
])('refuses %j', (options, message) => {
  expect(made(options)).toThrow(message);
});

test('the clip needs to know the learning rate', () => {
  expect(() => kfac()).toThrow(
    'kfac: expected learningRate, which klClip needs, but received none. Pass what sgd is given, or klClip: false.',
  );
  expect(() => kfac({ learningRate: 0.1 })).not.toThrow();
  expect(() => kfac({ klClip: false })).not.toThrow();
});

test('before its first step there is nothing to report', () => {
  const { report, link, transforms } = kfac({ learningRate: 0.1 });
  expect(transforms).toEqual([link]);
  expect(link.kind).toBe('local');
  expect(kfac({ learningRate: 0.1, distribution: {} }).link.kind).toBe('exchange');
  expect(report()).toMatchObject({ layers: [], passed: [], updates: 0, decompositions: 0, factorBytes: 0 });
});

test.each([
  [{ initial: 0 }, /initial/],
  [{ initial: 20 }, /initial in \[0.000001, 10\] but received 20/],
  [{ every: 0.5 }, /every/],
  [{ omega: 1 }, /omega in \(0, 1\) but received 1/],
  [{ min: 0 }, /min in \(0, ∞\) but received 0/],
  [{ min: 2, max: 1 }, /max in \[2, ∞\) but received 1/],
  [{ t: 5 }, /received "t"/],
])('levenbergMarquardt refuses %j', (options, message) => {
  expect(() => levenbergMarquardt(options as object)).toThrow(message);
});
