import { attach } from '@frugal/core';
import { toyModel } from '@frugal/core/testing';
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
  [{ klClip: 0 }, /klClip in \(0, ∞\) but received 0/],
  // The clip asks the update that follows.
  [{ klClip: 0.1, learningRate: 0.1 }, /kfac: .*received "learningRate"/],
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

test('its link is a gradient link, which exchanges where it is distributed', () => {
  const method = kfac();
  expect(method.links).toEqual([method.link]);
  expect(method.link.kind).toBe('gradient');
  const distributed = kfac({ distribution: {} });
  expect(distributed.links).toEqual([distributed.link]);
  expect(distributed.link.kind).toBe('exchange');
});

test('before its first step there is nothing to report', () => {
  const method = kfac();
  const attached = attach(toyModel(), method);
  const nothing = { layers: [], passed: [], updates: 0, decompositions: 0, factorBytes: 0 };
  expect(attached.of(method)).toMatchObject(nothing);
  // The report is of a run, and a description has none.
  expect(() => attached.of(kfac())).toThrow(/kfac: expected a link or a method that this run has opened/);
  attached.detach();
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
