import { attach, type Chain, clockAt, type Link, openChain, type Param, stepper } from '@frugal/core';
import { toyModel, toySgd } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { allReduce } from '../all-reduce.js';
import { alone } from '../alone.js';
import { localCluster } from '../local.js';
import { ring } from '../topology/graphs.js';
import { contextOf } from '../testing/context.js';
import { d2 } from './d2.js';
import { decentlam } from './decentlam.js';
import { dsgd } from './dsgd.js';
import type { DecentralizedLink } from './link.js';
import { factories, openOn, param, scopeAt } from './testing/links.js';

describe('state, options, errors', () => {
  beforeAll(() => tf.setBackend('cpu'));
  const move = async (chain: Chain, p: Param, from: number, to: number, c = alone()): Promise<void> => {
    for (let step = from; step < to; step++) {
      const gradients = new Map([[p.name, tf.tidy(() => tf.mul(tf.sub(p.value, c.rank), 1 + step))]]);
      await chain.applyAsync(gradients, scopeAt(step, c));
    }
  };
  const variablesOf = (chain: Chain): ReadonlyMap<string, tf.Variable> =>
    new Map(
      [...chain.state()].map(([key, kept]) => {
        if (!(kept instanceof tf.Variable)) throw new Error(`${key} lies on the host`);
        return [key, kept];
      }),
    );
  const restore = (to: Chain, from: Chain, factor = 1): void => {
    const source = variablesOf(from);
    for (const [key, variable] of variablesOf(to)) {
      expect(variable.trainable).toBe(false);
      variable.assign(tf.mul(source.get(key)!, factor));
    }
  };

  test.each(Object.entries(factories))(
    '%s: a state that is restored goes on with the same bits',
    async (name, make) => {
      const link = () => make({ learningRate: '0.02 * (1 - t)', momentum: 0.5, topology: ring() });
      await localCluster(2, async (c) => {
        const one = param([1, -2, 3]);
        expect(link().name).toBe(name);
        const first = await openOn(link(), one, c);
        expect([...first.state().keys()]).toEqual(link().slots.map((slot) => `${name}/${slot}/w`));
        await move(first, one, 0, 5, c);
        const ends: number[][] = [];
        const resume = async (factor: number): Promise<number[]> => {
          const two = param([...one.value.dataSync()]);
          const second = await openOn(link(), two, c);
          restore(second, first, factor);
          await move(second, two, 5, 9, c);
          return [...two.value.dataSync()];
        };
        ends.push(await resume(1), await resume(0));
        await move(first, one, 5, 9, c);
        expect(ends[0]).toEqual([...one.value.dataSync()]);
        // Control: without its state it goes elsewhere.
        if (name !== 'dsgd') expect(ends[1]).not.toEqual(ends[0]);
        first.dispose();
        expect(first.state().size).toBe(0);
      });
    },
  );

  test.each(Object.entries(factories))(
    '%s: one description for two ranks, each with a state of its own',
    async (_, make) => {
      const link = () => make({ learningRate: '0.02 * (1 - t)', momentum: 0.5, topology: ring() });
      const go = (of: () => DecentralizedLink) =>
        localCluster(2, async (c) => {
          const p = param([1, -2, 3]);
          await move(await openOn(of(), p, c), p, 0, 5, c);
          return [...p.value.dataSync()];
        });
      const one = link();
      const shared = await go(() => one);
      expect(shared).toEqual(await go(link));
      // And once more: the first run has left nothing behind.
      expect(await go(() => one)).toEqual(shared);
    },
  );

  test('what was read of the state does not change in later steps', async () => {
    const p = param([1, -2, 3]);
    const chain = await openOn(decentlam({ learningRate: 0.1, topology: ring() }), p);
    await move(chain, p, 0, 2);
    const variable = variablesOf(chain).get('decentlam/velocity/w')!;
    const read = variable.clone();
    const values = [...read.dataSync()];
    await move(chain, p, 2, 4);
    expect([...read.dataSync()]).toEqual(values);
    expect([...variable.dataSync()]).not.toEqual(values);
  });

  test('by hand: weight decay joins the gradient before the exchange; of matrices, unless told otherwise', async () => {
    const step = async (shape: number[], decay?: () => boolean): Promise<number> => {
      const p = param([2], shape);
      const link = dsgd({ learningRate: 0.5, topology: ring(), weightDecay: 0.1, ...(decay && { decay }) });
      // x = 2, g = 2: 2 − ½(2 + 0.1 · 2) = 0.9
      await move(await openOn(link, p), p, 0, 1);
      return p.value.dataSync()[0]!;
    };
    expect(await step([1, 1])).toBeCloseTo(0.9, 6);
    expect(await step([1])).toBeCloseTo(1, 6);
    expect(await step([1], () => true)).toBeCloseTo(0.9, 6);
  });

  test('a weight without gradient takes part in the exchange only', async () => {
    const ends = await localCluster(2, async (c) => {
      const p = param([2 * c.rank, 4]);
      const chain = await openOn(dsgd({ learningRate: 1, topology: ring() }), p, c);
      await chain.applyAsync(new Map(), scopeAt(0, c));
      return [...p.value.dataSync()];
    });
    expect(ends).toEqual([
      [1, 4],
      [1, 4],
    ]);
  });

  test('a weight moves by a difference that is rounded: the bits of all runs so far', async () => {
    const p = param([1]);
    const chain = await openOn(dsgd({ learningRate: 0.1, topology: ring() }), p);
    await chain.applyAsync(new Map([['w', tf.tensor1d([9.99])]]), scopeAt(0));
    const reached = Math.fround(1 - 0.1 * Math.fround(9.99));
    const moved = Math.fround(1 + Math.fround(reached - 1));
    expect(p.value.dataSync()[0]).toBe(moved);
    // The control: it is not where the recursion ends.
    expect(moved).not.toBe(reached);
  });

  test('hyper-parameters at a step', async () => {
    const at = async (link: DecentralizedLink, step: number): Promise<Record<string, number>> =>
      (await openOn(link, param([1]))).hyperparameters(scopeAt(step));
    const link = decentlam({ learningRate: '0.1 * (1 - t)', topology: ring(), weightDecay: 1e-4 });
    expect(await at(link, 6)).toEqual({ learningRate: 0.05, momentum: 0.9, weightDecay: 1e-4 });
    expect(await at(dsgd({ learningRate: 0.1, topology: ring() }), 0)).toEqual({ learningRate: 0.1 });
    expect(await at(d2({ learningRate: 0.1, topology: ring() }), 0)).toMatchObject({ momentum: 0 });
    expect(link.rateOf(param([1]))?.(clockAt(6, 12))).toBe(0.05);
  });

  test('a step before it is prepared is refused', async () => {
    const link = decentlam({ learningRate: 0.1, topology: ring() });
    const p = param([1]);
    const unready = openChain('test', [link], contextOf([p]));
    const message = /decentlam: expected to be prepared before its first step/;
    await expect(move(unready, p, 0, 1)).rejects.toThrow(message);
    const vectors = { x: new Float64Array(1), g: new Float64Array(1), state: { velocity: new Float64Array(1) } };
    await expect(link.openRecursion(alone()).advance(vectors, clockAt(0))).rejects.toThrow(message);
  });

  test('it is the update of its chain: another beside it, an exchange behind it and fit are refused', () => {
    const link = decentlam({ learningRate: 0.1, topology: ring() });
    const model = toyModel();
    const run =
      (...optimizer: Link[]) =>
      () =>
        stepper(model, { optimizer, communicator: alone() });
    expect(run(link, toySgd())).toThrow(
      'expected exactly one link that moves the weights but [decentlam, toySgd] has 2',
    );
    expect(run(link, allReduce())).toThrow(
      'expected the order [allReduce, decentlam] but received [decentlam, allReduce]',
    );
    expect(() => stepper(model, { optimizer: link })).toThrow('decentlam exchanges tensors with other ranks');
    const attached = attach(model);
    expect(() => attached.optimizer(link)).toThrow(/decentlam exchanges tensors with other ranks and must be awaited/);
    attached.detach();
    model.dispose();
  });

  test.each(Object.entries(factories))('%s: bad options', (name, make) => {
    const bad = (options: object) => () => make({ learningRate: 0.1, topology: ring(), ...options });
    expect(bad({ learningRate: -1 })).toThrow(/learningRate/);
    expect(bad({ topology: 'ring' })).toThrow(/topology.*ring\(\)/);
    expect(bad({ weightDecay: -1 })).toThrow(/weightDecay/);
    expect(bad({ decay: 3 })).toThrow(/decay/);
    expect(bad({ rate: 3 })).toThrow(/rate/);
    if (name === 'dsgd')
      expect(() => dsgd({ learningRate: 1, topology: ring(), momentum: 0.9 } as never)).toThrow(/momentum/);
    else expect(bad({ momentum: 1 })).toThrow(/momentum/);
  });

  test('a value of a schedule is checked when read, with its step', async () => {
    const p = param([1]);
    const chain = await openOn(dsgd({ learningRate: ({ step }) => 1 - step, topology: ring() }), p);
    await expect(move(chain, p, 0, 3)).rejects.toThrow(/learningRate at step 2/);
  });

  test('weights whose columns do not sum to 1 are refused before the first step', async () => {
    const data = Float64Array.of(1, 0, 1, 0);
    const topology = { name: 'mine', period: () => 1, weights: () => ({ rows: 2, columns: 2, data }) };
    const attempt = localCluster(2, (c) => openOn(dsgd({ learningRate: 1, topology }), param([1]), c));
    await expect(attempt).rejects.toThrow(/mine: expected weights \[2, 2\]/);
  });
});
