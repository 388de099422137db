import {
  batches,
  chain,
  clockAt,
  type Communicator,
  type Dataset,
  openScope,
  type Param,
  slice,
  stepper,
  stream,
} from '@frugal/core';
import { describeEngines, relativeError, toyImages, toyModel, toySgd, trainFor, weightsOf } from '@frugal/core/testing';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { alone } from '../alone.js';
import { localCluster } from '../local.js';
import { fullyConnected, onePeerExponential, ring } from '../topology/graphs.js';
import type { Topology } from '../topology/topology.js';
import { awcDmsgd } from './awc-dmsgd.js';
import { d2 } from './d2.js';
import { daDmsgd } from './da-dmsgd.js';
import { decentlam } from './decentlam.js';
import { dmsgd } from './dmsgd.js';
import { dsgd } from './dsgd.js';
import { edm } from './edm.js';
import type { DecentralizedLink, MomentumOptions } from './link.js';
import { momentumTracking } from './momentum-tracking.js';
import { qgDmsgd } from './qg-dmsgd.js';
import { slowMo } from './slow-mo.js';
import { disagreement } from './testing/quadratics.js';

const factories: Record<string, (options: MomentumOptions) => DecentralizedLink> = {
  awcDmsgd,
  d2,
  daDmsgd,
  decentlam,
  dmsgd,
  edm,
  momentumTracking,
  qgDmsgd,
  slowMo: (options) => slowMo({ ...options, every: 2 }),
  dsgd: (options) => dsgd(Object.fromEntries(Object.entries(options).filter(([key]) => key !== 'momentum')) as never),
};

// 62 is no multiple of 4: the ranks have unequal parts.
const data = toyImages(62);

/** Trains on full batches; returns the weights. */
async function steps(
  communicator: Communicator,
  link: DecentralizedLink | ReturnType<typeof toySgd>,
  count: number,
  options: { division?: 'data'; own?: Dataset; each?: (tensors: number) => void } = {},
): Promise<number[]> {
  const { own = data, each, ...more } = options;
  const model = toyModel();
  const { step, dispose } = stepper(model, { optimizer: link, communicator, totalSteps: count, ...more });
  for (let i = 0; i < count; i++) {
    for (const batch of batches(own, { batchSize: own.length })) await step(batch);
    // Nobody is in the middle of a step.
    await communicator.barrier();
    each?.(tf.memory().numTensors);
  }
  const weights = weightsOf(model);
  dispose();
  model.dispose();
  return weights;
}

const param = (values: readonly number[], shape: number[] = [values.length], name = 'w'): Param => ({
  name,
  value: tf.tidy(() => tf.variable(tf.tensor([...values], shape), true)),
});
const scopeAt = (step: number, { rank, size }: Communicator = alone()) =>
  openScope(clockAt(step, 12), 0, rank, 1 / size);

await describeEngines('decentralized links on a model', () => {
  test('fully connected DSGD is SGD on the data of all ranks', async () => {
    const link = (topology: Topology) => dsgd({ learningRate: '0.2 * (1 - t)', topology });
    const ends = await localCluster(4, (c) => steps(c, link(fullyConnected()), 6));
    const expected = await steps(alone(), toySgd('0.2 * (1 - t)', 0), 6);
    for (const weights of ends) expect(relativeError(weights, expected)).toBeLessThan(1e-5);
    // Control: on a ring they differ.
    const near = await localCluster(4, (c) => steps(c, link(ring()), 6));
    expect(relativeError(near[0]!, expected)).toBeGreaterThan(1e-4);
  });

  test.each([
    ['dmsgd', dmsgd],
    ['awcDmsgd', awcDmsgd],
    ['daDmsgd', daDmsgd],
    ['decentlam', decentlam],
    ['momentumTracking', momentumTracking],
  ])('%s of one rank is SGD with momentum', async (_name, make) => {
    const link = make({ learningRate: 0.05, topology: ring() });
    const weights = await steps(alone(), link, 6);
    const expected = await steps(alone(), toySgd(0.05, 0.9), 6);
    expect(relativeError(weights, expected)).toBeLessThan(1e-5);
    expect(link.report()).toMatchObject({ steps: 6, bytes: 0 });
    const start = await steps(alone(), toySgd(0, 0.9), 1);
    expect(relativeError(start, expected)).toBeGreaterThan(1e-2);
  });

  test('ranks that start apart come together: exactly in two steps of the one-peer graph', async () => {
    const after = async (count: number): Promise<number> =>
      disagreement(
        await localCluster(4, async (c) => {
          const random = stream(3, c.rank);
          const p = param(
            Array.from({ length: 30 }, () => random.normal()),
            [5, 6],
          );
          const link = dsgd({ learningRate: 0, topology: onePeerExponential() });
          link.init([p]);
          for (let step = 0; step < count; step++) await chain([link]).applyAsync(new Map(), [p], scopeAt(step, c), c);
          const values = [...p.value.dataSync()];
          p.value.dispose();
          return values;
        }),
      );
    const [none, one, two] = [await after(0), await after(1), await after(2)];
    expect(one).toBeLessThan(0.8 * none);
    expect(one).toBeGreaterThan(0.1 * none);
    expect(two).toBeLessThan(1e-12 * none);
  });

  test('bytes: two neighbours, four bytes a weight; tensors do not pile up; all are freed', async () => {
    const before = tf.memory().numTensors;
    const counts: number[] = [];
    const reports = await localCluster(4, async (c) => {
      const link = decentlam({ learningRate: 0.05, topology: ring() });
      const own = slice(data, 15 * c.rank, 15 * c.rank + 15);
      const weights = await steps(c, link, 8, {
        division: 'data',
        own,
        each: (tensors) => {
          if (c.rank === 0) counts.push(tensors);
        },
      });
      return { ...link.report(), size: weights.length };
    });
    for (const { size, ...report } of reports) {
      const bytesPerStep = 2 * 4 * size;
      expect(report).toEqual({
        topology: 'ring',
        steps: 8,
        bytes: 8 * bytesPerStep,
        bytesPerStep,
        fullBytes: 8 * 4 * size,
      });
    }
    expect(new Set(counts)).toEqual(new Set([counts[0]]));
    expect(tf.memory().numTensors).toBe(before);
  });

  test('train: a run that was stopped resumes to the same bits on every rank', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'frugal-decentralized-'));
    const go = async (c: Communicator, stopAfter: number, to?: string): Promise<number[]> => {
      const model = toyModel();
      await trainFor(stopAfter, model, data, {
        optimizer: decentlam({ learningRate: '0.1 * (1 - t)', topology: ring(), weightDecay: 1e-3 }),
        communicator: c,
        epochs: 3,
        batchSize: 20,
        ...(to !== undefined && { checkpoint: { folder: to } }),
      });
      const weights = weightsOf(model);
      model.dispose();
      return weights;
    };
    try {
      const whole = await localCluster(4, (c) => go(c, Infinity));
      const half = await localCluster(4, (c) => go(c, 5, folder));
      const resumed = await localCluster(4, (c) => go(c, Infinity, folder));
      expect(resumed).toEqual(whole);
      expect(half).not.toEqual(whole);
      expect(disagreement(whole)).toBeGreaterThan(0);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('state, options, errors', () => {
  beforeAll(() => tf.setBackend('cpu'));
  const move = async (link: DecentralizedLink, p: Param, from: number, to: number, c = alone()): Promise<void> => {
    for (let step = from; step < to; step++) {
      const gradients = new Map([[p.name, tf.tidy(() => tf.mul(tf.sub(p.value, c.rank), 1 + step))]]);
      await chain([link]).applyAsync(gradients, [p], scopeAt(step, c), c);
    }
  };
  const restore = (to: DecentralizedLink, from: DecentralizedLink, factor = 1): void => {
    for (const [key, variable] of to.state()) {
      expect(variable.trainable).toBe(false);
      variable.assign(tf.mul(from.state().get(key)!, factor));
    }
  };

  test.each(Object.entries(factories))(
    '%s: a state that is restored goes on with the same bits',
    async (name, make) => {
      const link = () => make({ learningRate: '0.02 * (1 - t)', momentum: 0.5, topology: ring() });
      await localCluster(2, async (c) => {
        const one = param([1, -2, 3]);
        const first = link();
        expect(first.name).toBe(name);
        first.init([one]);
        expect([...first.state().keys()]).toEqual(first.slots.map((slot) => `${name}/${slot}/w`));
        await move(first, one, 0, 5, c);
        const ends: number[][] = [];
        const resume = async (factor: number): Promise<number[]> => {
          const [second, two] = [link(), param([...one.value.dataSync()])];
          second.init([two]);
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

  test('what was read of the state does not change in later steps', async () => {
    const p = param([1, -2, 3]);
    const link = decentlam({ learningRate: 0.1, topology: ring() });
    link.init([p]);
    await move(link, p, 0, 2);
    const variable = link.state().get('decentlam/velocity/w')!;
    const read = variable.clone();
    const values = [...read.dataSync()];
    await move(link, p, 2, 4);
    expect([...read.dataSync()]).toEqual(values);
    expect([...variable.dataSync()]).not.toEqual(values);
  });

  test('by hand: weight decay joins the gradient before the exchange; of matrices, unless told otherwise', async () => {
    const step = async (shape: number[], decay?: () => boolean): Promise<number> => {
      const p = param([2], shape);
      const link = dsgd({ learningRate: 0.5, topology: ring(), weightDecay: 0.1, ...(decay && { decay }) });
      link.init([p]);
      // x = 2, g = 2: 2 − ½(2 + 0.1 · 2) = 0.9
      await move(link, p, 0, 1);
      return p.value.dataSync()[0]!;
    };
    expect(await step([1, 1])).toBeCloseTo(0.9, 6);
    expect(await step([1])).toBeCloseTo(1, 6);
    expect(await step([1], () => true)).toBeCloseTo(0.9, 6);
  });

  test('a weight without gradient takes part in the exchange only', async () => {
    const ends = await localCluster(2, async (c) => {
      const link = dsgd({ learningRate: 1, topology: ring() });
      const p = param([2 * c.rank, 4]);
      link.init([p]);
      await chain([link]).applyAsync(new Map(), [p], scopeAt(0, c), c);
      return [...p.value.dataSync()];
    });
    expect(ends).toEqual([
      [1, 4],
      [1, 4],
    ]);
  });

  test('hyper-parameters at a step', () => {
    const link = decentlam({ learningRate: '0.1 * (1 - t)', topology: ring(), weightDecay: 1e-4 });
    expect(link.hyperparameters(scopeAt(6))).toEqual({ learningRate: 0.05, momentum: 0.9, weightDecay: 1e-4 });
    expect(dsgd({ learningRate: 0.1, topology: ring() }).hyperparameters(scopeAt(0))).toEqual({ learningRate: 0.1 });
    expect(d2({ learningRate: 0.1, topology: ring() }).hyperparameters(scopeAt(0))).toMatchObject({ momentum: 0 });
  });

  test('one link for two ranks, and weights that init has not seen, are refused', async () => {
    const link = decentlam({ learningRate: 0.1, topology: ring() });
    const [mine, other] = [param([1]), param([1])];
    link.init([mine]);
    await expect(move(link, other, 0, 1)).rejects.toThrow(/Each rank needs a link of its own/);
    await expect(link.exchange(new Map(), [mine, other], scopeAt(0), alone())).rejects.toThrow(/1 weights.*received 2/);
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
    const link = dsgd({ learningRate: ({ step }) => 1 - step, topology: ring() });
    const p = param([1]);
    link.init([p]);
    await expect(move(link, p, 0, 3)).rejects.toThrow(/learningRate at step 2/);
  });

  test('weights whose columns do not sum to 1 are refused at the first step', async () => {
    const data = Float64Array.of(1, 0, 1, 0);
    const topology = { name: 'mine', period: () => 1, weights: () => ({ rows: 2, columns: 2, data }) };
    const attempt = localCluster(2, async (c) => {
      const p = param([1]);
      const link = dsgd({ learningRate: 1, topology });
      link.init([p]);
      await chain([link]).applyAsync(new Map(), [p], scopeAt(0, c), c);
    });
    await expect(attempt).rejects.toThrow(/mine: expected weights \[2, 2\]/);
  });
});
