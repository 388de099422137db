import {
  batches,
  type Communicator,
  type Dataset,
  groups,
  type Link,
  slice,
  type Stepper,
  stepper,
  stream,
} from '@frugal/core';
import { describeEngines, relativeError, toyImages, toyModel, toySgd, trainFor, weightsOf } from '@frugal/core/testing';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { alone } from '../alone.js';
import { localCluster } from '../local.js';
import { fullyConnected, onePeerExponential, ring } from '../topology/graphs.js';
import type { Topology } from '../topology/topology.js';
import { awcDmsgd } from './awc-dmsgd.js';
import { daDmsgd } from './da-dmsgd.js';
import { decentlam } from './decentlam.js';
import { dmsgd } from './dmsgd.js';
import { dsgd } from './dsgd.js';
import type { DecentralizedReport } from './link.js';
import { momentumTracking } from './momentum-tracking.js';
import { openOn, param, scopeAt } from './testing/links.js';
import { disagreement } from './testing/quadratics.js';

// 62 is no multiple of 4: the ranks have unequal parts.
const data = toyImages(62);

/** Trains on full batches; returns the weights. */
async function steps(
  communicator: Communicator,
  link: Link,
  count: number,
  options: {
    division?: 'data';
    own?: Dataset;
    each?: (tensors: number) => void;
    /** Asks the run after its end. */
    end?: (of: Stepper['of']) => void;
  } = {},
): Promise<number[]> {
  const { own = data, each, end, ...more } = options;
  const model = toyModel();
  const { step, of, dispose } = stepper(model, { optimizer: link, communicator, totalSteps: count, ...more });
  for (let i = 0; i < count; i++) {
    for (const batch of batches(own, { batchSize: own.length })) await step(batch);
    // Nobody is in the middle of a step.
    await communicator.barrier();
    each?.(tf.memory().numTensors);
  }
  const weights = weightsOf(model);
  dispose();
  end?.(of);
  model.dispose();
  return weights;
}

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
    const reports: DecentralizedReport[] = [];
    const weights = await steps(alone(), link, 6, { end: (of) => reports.push(of(link)) });
    const expected = await steps(alone(), toySgd(0.05, 0.9), 6);
    expect(relativeError(weights, expected)).toBeLessThan(1e-5);
    expect(reports).toMatchObject([{ steps: 6, bytes: 0 }]);
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
          const chain = await openOn(dsgd({ learningRate: 0, topology: onePeerExponential() }), p, c);
          for (let step = 0; step < count; step++) await chain.applyAsync(new Map(), scopeAt(step, c));
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
      const told: DecentralizedReport[] = [];
      const weights = await steps(c, link, 8, {
        division: 'data',
        own,
        each: (tensors) => {
          if (c.rank === 0) counts.push(tensors);
        },
        end: (of) => told.push(of(link)),
      });
      return { ...told[0]!, size: weights.length };
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

  test('one description serves all ranks: the bits of one each', async () => {
    const make = () => decentlam({ learningRate: '0.2 * (1 - t)', topology: ring(), weightDecay: 1e-3 });
    const one = make();
    const reports: DecentralizedReport[] = [];
    const shared = await localCluster(4, (c) => steps(c, one, 4, { end: (of) => (reports[c.rank] = of(one)) }));
    expect(shared).toEqual(await localCluster(4, (c) => steps(c, make(), 4)));
    // Each rank tells of what it has sent itself, to two neighbours.
    const bytes = 4 * 2 * 4 * shared[0]!.length;
    expect(reports.map((report) => report.bytes)).toEqual([bytes, bytes, bytes, bytes]);
    expect(disagreement(shared)).toBeGreaterThan(0);
  });

  test('in groups, each with the weights of its own: the bits of one link, since a method knows no weight from another', async () => {
    const make = () => decentlam({ learningRate: 0.1, topology: ring() });
    const parts = [make(), make()] as const;
    const grouped = groups([
      { match: ({ value }) => value.shape.length >= 2, optimizer: parts[0] },
      { optimizer: parts[1] },
    ]);
    const bytes: number[] = [];
    const end = (of: Stepper['of']): void => void bytes.push(...parts.map((part) => of(part).bytesPerStep));
    const ends = await localCluster(2, (c) => steps(c, grouped, 3, { end }));
    expect(ends).toEqual(await localCluster(2, (c) => steps(c, make(), 3)));
    const biases = 4 + 12 + 24 + 3;
    const [kernelBytes, biasBytes] = [4 * (ends[0]!.length - biases), 4 * biases];
    expect(bytes).toEqual([kernelBytes, biasBytes, kernelBytes, biasBytes]);
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
