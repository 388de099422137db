import {
  clockAt,
  conv2d,
  dense,
  type ExchangeLink,
  type Geometry,
  openScope,
  type Param,
  type SampledSlices,
  type Site,
  stream,
} from '@frugal/core';
import { describeEngines, expectNoLeak, relativeError, toySgd, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, it, test } from 'vitest';
import { alone } from './alone.js';
import { allReduce, type ExchangeReport } from './all-reduce.js';
import { localCluster } from './local.js';
import { sampledAllReduce } from './sampled-all-reduce.js';
import { contextOf } from './testing/context.js';
import { handTrain } from './testing/data-parallel.js';
import { largestWeights } from './testing/largest-weights.js';

/** Slices that the host knows. */
interface Slices extends SampledSlices {
  readonly indices: Int32Array;
}

const weight = (name: string, shape: number[], geometry?: Geometry): Param => {
  const value = tf.tidy(() => tf.variable(tf.zeros(shape)));
  const site = geometry && ({ name: `${name} site`, index: 0, geometry, kernel: value, role: 'hidden' } as const);
  return { name, value, ...(site && { site }) };
};

/** Random numbers in the slices of the sample, zero elsewhere. */
function gradient(shape: number[], rank: number, slices?: Slices): tf.Tensor {
  const random = stream(5, 'gradient', rank, ...shape);
  const full = tf.tensor(
    Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random.normal()),
    shape,
  );
  if (!slices) return full;
  const mask = tf.oneHot(tf.tensor1d(slices.indices, 'int32'), shape[slices.axis]!).sum(0);
  const wide = mask.reshape(shape.map((n, i) => (i === slices.axis ? n : 1)));
  // + 0: a masked negative number is -0.
  return full.mul(wide).add(0);
}

const DENSE = [6, 70];
const CONV = [3, 3, 5, 4];

interface Plans {
  readonly dense?: Slices;
  readonly conv?: Slices;
}

/** Where a rule leaves the indices of its plan: on the host. */
const onHost = (slices: SampledSlices): SampledSlices => slices;

/** One exchange of a sampled dense weight, a sampled convolution and a bias; what each rank received, and the bytes. */
function exchange(
  size: number,
  make: () => ExchangeLink<ExchangeReport>,
  plansOf: (rank: number) => Plans,
  lay: (slices: Slices) => SampledSlices = onHost,
) {
  return localCluster(size, async (communicator) => {
    const { rank } = communicator;
    const plans = plansOf(rank);
    const params = [
      weight('dense', DENSE, dense),
      weight('conv', CONV, conv2d({ strides: [1, 1], pad: 'same' })),
      weight('bias', [7]),
    ] as const;
    const updates = new Map(
      Object.entries(
        tf.tidy(() => ({
          dense: gradient(DENSE, rank, plans.dense),
          conv: gradient(CONV, rank, plans.conv),
          bias: gradient([7], rank),
        })),
      ),
    );
    const scope = openScope(clockAt(0), 0, rank, (rank + 1) / 6);
    const sampled = { dense: plans.dense && lay(plans.dense), conv: plans.conv && lay(plans.conv) };
    if (sampled.dense) scope.plans.set(params[0].site as Site, { sampled: sampled.dense });
    if (sampled.conv) scope.plans.set(params[1].site as Site, { key: 'of a rule', sampled: sampled.conv });
    const link = make().open(contextOf(params, communicator));
    await link.prepare?.();
    try {
      const sums = await link.exchange(updates, scope);
      const values = [...sums].map(([name, t]) => [name, t.shape, [...t.dataSync()]] as const);
      tf.dispose([...sums.values()]);
      return { values: values.sort(([a], [b]) => a.localeCompare(b)), report: link.report?.() };
    } finally {
      tf.dispose([...updates.values(), ...params.map(({ value }) => value)]);
      for (const slices of [sampled.dense, sampled.conv]) if (slices) tf.dispose(slices.indices);
    }
  });
}

const PLANS: Plans = {
  dense: { axis: 0, indices: Int32Array.of(1, 4) },
  conv: { axis: 2, indices: Int32Array.of(0, 2, 3) },
};

await describeEngines('sampledAllReduce', (engine) => {
  test('is all-reduce of the same gradients, bit for bit, with fewer bytes', async () => {
    const sampled = await exchange(
      3,
      () => sampledAllReduce({ bucketBytes: 600 }),
      () => PLANS,
    );
    const whole = await exchange(
      3,
      () => allReduce(),
      () => PLANS,
    );
    expect(sampled.map(({ values }) => values)).toEqual(whole.map(({ values }) => values));
    // 2 of 6 rows of 70, 3 of 5 channels of 9·4, the bias, and two checksums of each weight.
    expect(sampled[0]!.report?.bytes).toBe(4 * (2 * 70 + 3 * 36 + 7) + 3 * 16);
    expect(sampled[0]!.report?.fullBytes).toBe(whole[0]!.report?.bytes);
  });

  test('without plans all travels', async () => {
    const sampled = await exchange(
      2,
      () => sampledAllReduce(),
      () => ({}),
    );
    const whole = await exchange(
      2,
      () => allReduce(),
      () => ({}),
    );
    expect(sampled[1]!.values).toEqual(whole[1]!.values);
  });

  /** As a rule leaves indices that were drawn on the engine: in no order, and one of them twice. */
  const onEngine = ({ axis, indices }: Slices): SampledSlices => ({
    axis,
    indices: tf.tensor1d([...indices.toReversed(), indices[0]!], 'int32'),
  });

  test('indices that lie on the engine, unsorted and repeated, send the same slices', async () => {
    const link = () => sampledAllReduce();
    const host = await exchange(3, link, () => PLANS);
    await expectNoLeak(async () => {
      expect(await exchange(3, link, () => PLANS, onEngine)).toEqual(host);
    });
    // The control: which ones they are does matter.
    const others = exchange(
      3,
      link,
      (rank) => (rank === 1 ? { ...PLANS, dense: { axis: 0, indices: Int32Array.of(1, 5) } } : PLANS),
      onEngine,
    );
    await expect(others).rejects.toThrow('the same plan on all ranks at site dense site');
  });

  test('no tensor is left', async () => {
    await exchange(
      2,
      () => sampledAllReduce(),
      () => PLANS,
    );
    await expectNoLeak(() =>
      exchange(
        2,
        () => sampledAllReduce(),
        () => PLANS,
      ),
    );
  });

  const run = (link: () => ExchangeLink, steps = 4) => ({
    steps,
    methods: () => [largestWeights(0.4)],
    links: () => [link(), toySgd(0.05, 0.9)],
  });

  test.each(
    engine === 'native'
      ? [
          [4, 4],
          [3, 1, 5],
        ]
      : [[4, 4]],
  )(
    'ranks with %i, %i, … examples are one rank with all, momentum included, and stay equal to the bit',
    async (...parts) => {
      const batch = parts.reduce((a, b) => a + b);
      const one = await handTrain(alone(), { ...run(sampledAllReduce), parts: [batch] });
      const seen: number[][][] = [];
      const ranks = await localCluster(parts.length, (communicator) =>
        handTrain(communicator, {
          ...run(sampledAllReduce),
          parts,
          after: (rank, step, model) => ((seen[step] ??= [])[rank] = weightsOf(model)),
        }),
      );
      for (const weights of ranks) expect(relativeError(weights, one)).toBeLessThan(1e-5);
      expect(seen).toHaveLength(4);
      for (const step of seen) for (const weights of step) expect(weights).toEqual(step[0]);
      // The control: it is the sample that was trained.
      const exact = await handTrain(alone(), { ...run(sampledAllReduce), methods: () => [], parts: [batch] });
      expect(relativeError(one, exact)).toBeGreaterThan(1e-3);
    },
  );

  test('no tensor grows over steps', async () => {
    const train = (steps: number) =>
      localCluster(2, (communicator) => handTrain(communicator, { ...run(sampledAllReduce, steps), parts: [4, 4] }));
    await train(1);
    await expectNoLeak(() => train(3));
  });
});

describe('plans that differ', () => {
  const other = (rank: number, plans: Plans): Plans => (rank === 1 ? { ...PLANS, ...plans } : PLANS);

  it.each([
    ['another channel', { conv: { axis: 2, indices: Int32Array.of(0, 2, 4) } }, 'conv site'],
    ['another number of rows', { dense: { axis: 0, indices: Int32Array.of(1, 4, 5) } }, 'dense site'],
    ['another axis', { dense: { axis: 1, indices: Int32Array.of(1, 4) } }, 'dense site'],
    ['none', { dense: undefined as unknown as Slices }, 'dense site'],
  ] as const)('%s: an error with the site on all ranks', async (_what, plans, site) => {
    for (const size of [2, 3]) {
      const errors: unknown[] = [];
      const make = (): ExchangeLink<ExchangeReport> => ({
        ...sampledAllReduce(),
        open(context) {
          const opened = sampledAllReduce().open(context);
          return {
            ...opened,
            exchange: (...args) =>
              opened.exchange(...args).catch((error: unknown) => {
                errors.push(error);
                throw error;
              }),
          };
        },
      });
      await expect(exchange(size, make, (rank) => other(rank, plans))).rejects.toThrow(
        `expected the same plan on all ranks at site ${site}`,
      );
      expect(errors.map(String).filter((text) => text.includes(site))).toHaveLength(size);
    }
  });

  it('refuses bad options by its own name', () => {
    expect(() => sampledAllReduce({ keep: 0.5 } as object)).toThrow(/sampledAllReduce: expected options/);
  });
});
