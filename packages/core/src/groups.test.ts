import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Chain, openChain } from './chain.js';
import type { Communicator } from './communicator.js';
import { FrugalError } from './errors.js';
import { type Group, groups } from './groups.js';
import type { GradientLink, Link, Param, UpdateLink, WeightsLink } from './link.js';
import type { RunContext } from './opened.js';
import { clockAt } from './schedule.js';
import { openScope } from './scope.js';
import { stepper } from './stepper.js';
import { bareRun, eachGradient, plainUpdate, toyAverage } from './testing/descriptions.js';
import { describeEngines, expectNoLeak, relativeError } from './testing/engines.js';
import { meanGradient, runRanks } from './testing/ranks.js';
import { firstBatch, toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import { train } from './train.js';

const isKernel = ({ name }: Param): boolean => name.endsWith('kernel');
const data = toyImages(36);
const scope = openScope(clockAt(0, 10), 0);

/** Weights of a run of a few steps with an optimizer. */
async function run(optimizer: Link | Link[], more: object = {}): Promise<number[]> {
  const model = toyModel(2, { batchNorm: true });
  await train(model, data, { optimizer, epochs: 2, batchSize: 12, seed: 3, progress: false, ...more });
  const weights = weightsOf(model);
  model.dispose();
  return weights;
}

/** Params by hand, of the shapes of a small model. */
const params = (): Param[] =>
  tf.tidy(() =>
    (
      [
        ['a/kernel', [40, 60]],
        ['a/bias', [60]],
        ['b/kernel', [60, 3]],
        ['b/bias', [3]],
      ] as const
    ).map(([name, shape]) => ({ name, value: tf.variable(tf.randomNormal([...shape], 0, 1, 'float32', 7), false) })),
  );
const free = (all: readonly Param[]): void => all.forEach(({ value }) => value.dispose());
const valuesOf = (all: readonly Param[]): number[][] => all.map(({ value }) => [...value.dataSync()]);

/** Gradients of a step, the same in every run. */
const gradientsOf = (all: readonly Param[], step: number): Map<string, tf.Tensor> =>
  new Map(all.map(({ name, value }, i) => [name, tf.randomNormal(value.shape, 0, 1, 'float32', 10 * step + i + 1)]));

const open = (links: readonly Link[], all: readonly Param[], communicator?: Communicator): Chain => {
  const { context, setRates } = bareRun(all, communicator);
  const chain = openChain('test', links, context);
  setRates(chain.rateOf);
  return chain;
};

/** Some steps of chains, one after the other, on the same gradients. */
async function steps(chains: readonly (readonly [Chain, readonly Param[]])[], all: readonly Param[], awaited = false) {
  for (let step = 0; step < 4; step++) {
    const gradients = gradientsOf(all, step);
    for (const [chain, own] of chains) {
      const mine = new Map(own.map(({ name }) => [name, gradients.get(name)!.clone()]));
      if (awaited) await chain.applyAsync(mine, openScope(clockAt(step, 4), 0));
      else {
        chain.apply(mine, openScope(clockAt(step, 4), 0));
        tf.dispose([...mine.values()]);
      }
    }
    tf.dispose([...gradients.values()]);
  }
}

await describeEngines('groups', () => {
  it.each([false, true])(
    'move their weights as links of their own would, to the bit (awaited: %s)',
    async (awaited) => {
      const own = params();
      const other = params();
      const [kernels, biases] = [other.filter(isKernel), other.filter((p) => !isKernel(p))];
      await expectNoLeak(async () => {
        const chain = open(
          [groups([{ match: isKernel, optimizer: toySgd(0.1) }, { optimizer: toySgd(0.01, 0.5) }])],
          own,
        );
        const apart = [
          [open([toySgd(0.1)], kernels), kernels],
          [open([toySgd(0.01, 0.5)], biases), biases],
        ] as const;
        await steps([[chain, own]], own, awaited);
        await steps(apart, other, awaited);
        for (const [one] of [[chain] as const, ...apart]) one.dispose();
      });
      expect(valuesOf(own)).toEqual(valuesOf(other));
      // The control: they did move, and at other rates.
      const fresh = params();
      expect(valuesOf(own)).not.toEqual(valuesOf(fresh));
      const same = open([toySgd(0.1)], fresh);
      await steps([[same, fresh]], fresh, awaited);
      expect(valuesOf(own)[0]).toEqual(valuesOf(fresh)[0]);
      expect(valuesOf(own)[1]).not.toEqual(valuesOf(fresh)[1]);
      same.dispose();
      [own, other, fresh].forEach(free);
    },
  );

  it('of all weights at one rate train to the bits of that link alone; one description serves two groups', async () => {
    const link = toySgd(0.1);
    const plain = await run(toySgd(0.1));
    expect(await run(groups([{ optimizer: link }]))).toEqual(plain);
    expect(await run(groups([{ match: isKernel, optimizer: link }, { optimizer: link }]))).toEqual(plain);
    const nested = groups([{ match: isKernel, optimizer: groups([{ optimizer: link }]) }, { optimizer: toySgd(0.1) }]);
    expect(await run(nested)).toEqual(plain);
    expect(await run(groups([{ match: isKernel, optimizer: link }, { optimizer: toySgd(0.01) }]))).not.toEqual(plain);
  });

  it('leave no tensor behind, in runs, and free what they hold', async () => {
    const model = toyModel(2, { batchNorm: true });
    const optimizer = groups([
      { match: isKernel, optimizer: [eachGradient('half', (g) => tf.mul(g, 0.5)), toySgd(0.1), toyAverage()] },
      { optimizer: toySgd(0.01) },
    ]);
    const train2 = () => train(model, data, { optimizer, epochs: 1, batchSize: 12, progress: false });
    await train2();
    await expectNoLeak(train2);
    const batch = firstBatch(data, 12);
    await expectNoLeak(async () => {
      const { step, dispose } = stepper(model, { optimizer });
      await step(batch);
      const before = tf.memory().numTensors;
      await step(batch);
      expect(tf.memory().numTensors).toBe(before);
      dispose();
    });
  });
});

describe('a group', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('shows its links its own weights and gradients only, and what stands before it all of them', () => {
    const all = params();
    const seen: Record<string, string[]> = {};
    const looking = (name: string): GradientLink => ({
      kind: 'gradient',
      name,
      open: (context) => ({
        transform(gradients) {
          seen[name] = context.params.map((param) => param.name);
          seen[`${name} dW`] = [...gradients.keys()];
          return new Map(gradients);
        },
      }),
    });
    const following: WeightsLink = {
      kind: 'weights',
      name: 'following',
      open: (context) => ({ moved: () => void (seen['after'] = context.params.map(({ name }) => name)) }),
    };
    const chain = open(
      [
        looking('outside'),
        groups([
          { match: isKernel, optimizer: [looking('first'), plainUpdate(), following] },
          { optimizer: [looking('second'), plainUpdate()] },
        ]),
      ],
      all,
    );
    const gradients = gradientsOf(all, 0);
    gradients.get('b/bias')!.dispose();
    gradients.delete('b/bias');
    chain.apply(gradients, scope);
    const names = all.map(({ name }) => name);
    expect(seen).toEqual({
      outside: names,
      'outside dW': names.filter((name) => name !== 'b/bias'),
      first: ['a/kernel', 'b/kernel'],
      'first dW': ['a/kernel', 'b/kernel'],
      after: ['a/kernel', 'b/kernel'],
      second: ['a/bias', 'b/bias'],
      'second dW': ['a/bias'],
    });
    tf.dispose([...gradients.values()]);
    free(all);
  });

  it('belongs to the first match, and tells its own rate of a weight', () => {
    const all = params();
    let context: RunContext | undefined;
    const asking: Link = {
      kind: 'gradient',
      name: 'asking',
      open(given) {
        context = given;
        return { transform: (gradients) => new Map(gradients) };
      },
    };
    const list: Group[] = [
      { match: ({ value }) => value.rank === 2 && value.size < 1000, optimizer: toySgd('0.5 * (1 - t)') },
      { match: isKernel, optimizer: [asking, toySgd(0.25)] },
      { optimizer: toySgd(0.125) },
    ];
    const chain = open([asking, groups(list)], all);
    const rates = (step: number): number[] => all.map((param) => context!.rateOf(param)(clockAt(step, 10)));
    // a/kernel, a/bias, b/kernel, b/bias.
    expect(rates(0)).toEqual([0.25, 0.125, 0.5, 0.125]);
    expect(rates(5)).toEqual([0.25, 0.125, 0.25, 0.125]);
    expect(groups(list).rateOf(all[2]!)!(clockAt(5, 10))).toBe(0.25);
    expect(groups([{ match: isKernel, optimizer: toySgd() }]).rateOf(all[1]!)).toBeUndefined();
    chain.dispose();
    free(all);
  });

  it('names state and hyper-parameters by its number, also inside another group', () => {
    const all = params();
    const inner = groups([
      { match: ({ name }) => name === 'a/bias', optimizer: toySgd(0.3) },
      { optimizer: toySgd(0.4) },
    ]);
    const chain = open(
      [groups([{ match: isKernel, optimizer: toySgd(0.1) }, { optimizer: [inner, toyAverage()] }])],
      all,
    );
    expect([...chain.state().keys()]).toEqual([
      'group1/toySgd/velocity/a/kernel',
      'group1/toySgd/velocity/b/kernel',
      'group2/group1/toySgd/velocity/a/bias',
      'group2/group2/toySgd/velocity/b/bias',
      'group2/toyAverage/count',
      'group2/toyAverage/mean/a/bias',
      'group2/toyAverage/mean/b/bias',
    ]);
    expect(chain.hyperparameters(scope)).toEqual({
      'group1/learningRate': 0.1,
      'group2/group1/learningRate': 0.3,
      'group2/group2/learningRate': 0.4,
    });
    chain.dispose();
    free(all);
  });

  it('hands out what its weights have settled to', async () => {
    const all = params();
    const chain = open(
      [groups([{ match: isKernel, optimizer: [toySgd(), toyAverage()] }, { optimizer: toySgd() }])],
      all,
    );
    await steps([[chain, all]], all);
    expect([...chain.settled().keys()]).toEqual(['a/kernel', 'b/kernel']);
    expect([...chain.settled().get('a/kernel')!.dataSync()]).not.toEqual(valuesOf(all)[0]);
    chain.dispose();
    free(all);
  });

  it('prepares its links', async () => {
    const all = params();
    let loaded = 0;
    const loading: GradientLink = {
      kind: 'gradient',
      name: 'loading',
      open: () => ({
        transform: (g) => new Map(g),
        prepare: async () => {
          loaded++;
        },
      }),
    };
    const chain = open([groups([{ match: isKernel, optimizer: toySgd() }, { optimizer: [loading, toySgd()] }])], all);
    expect(chain.prepares).toBe('groups');
    await chain.prepare();
    expect(loaded).toBe(1);
    chain.dispose();
    const plain = open([groups([{ optimizer: toySgd() }])], all);
    expect(plain.prepares).toBeUndefined();
    plain.dispose();
    free(all);
  });

  it('may exchange with other ranks: two of them with halves of the batch make the steps of one', async () => {
    const build = (...head: Link[]): UpdateLink =>
      groups([{ match: isKernel, optimizer: [...head, toySgd(0.1)] }, { optimizer: [...head, toySgd(0.01)] }]);
    const trainOn = async (optimizer: Link, communicator?: Communicator): Promise<number[]> => {
      const own = toyModel(2);
      const options = { epochs: 1, batchSize: 12, progress: false as const, ...(communicator && { communicator }) };
      await train(own, data, { optimizer, ...options });
      return weightsOf(own);
    };
    const one = await trainOn(build());
    const two = await runRanks(2, (communicator) => trainOn(build(meanGradient()), communicator));
    expect(two[0]).toEqual(two[1]);
    // Another order of summation in float32.
    expect(relativeError(two[0]!, one)).toBeLessThan(1e-5);
    await expect(run(build(meanGradient()))).rejects.toThrow('pass { communicator }');
    expect([build().exchanges, build(meanGradient()).exchanges]).toEqual([undefined, true]);
  });
});

describe('groups refuse', () => {
  const message = (body: () => unknown): string => {
    try {
      body();
    } catch (error) {
      expect(FrugalError.is(error, 'CONFIG')).toBe(true);
      return (error as Error).message;
    }
    throw new Error('nothing was refused');
  };

  it('bad options, as they are made', () => {
    for (const wrong of [undefined, null, [], {}, 'all', toySgd()])
      expect(message(() => groups(wrong as never))).toContain('groups: expected a list of groups but received');
    expect(message(() => groups([{ matches: isKernel, optimizer: toySgd() } as never]))).toContain('matches');
    expect(message(() => groups([{ optimizer: toySgd() }, { match: 'kernel', optimizer: toySgd() } as never]))).toMatch(
      /^groups, number 2: expected match to be a function/,
    );
    const half = eachGradient('half', (g) => tf.mul(g, 0.5));
    expect(message(() => groups([{ optimizer: toySgd() }, { optimizer: half }]))).toMatch(/^groups, number 2: .* none/);
    expect(message(() => groups([{ optimizer: [toySgd(), half] }]))).toContain('the order [half, toySgd]');
    expect(message(() => groups([{ optimizer: [toySgd(), toySgd()] }]))).toContain('[toySgd, toySgd] has 2');
    for (const wrong of [{}, { match: isKernel }, { optimizer: tf.train.sgd(0.1) }, 'group', 7])
      expect(message(() => groups([wrong as never]))).toMatch(/^groups, number 1: /);
  });

  it.each([null, undefined])('a group that is %s', (wrong) => {
    expect(message(() => groups([wrong as never]))).toMatch(/^groups, number 1: /);
  });

  it('a weight of no group, and a group of no weight, when a run opens them; then nothing stays open', async () => {
    const model = toyModel();
    const kernels: Group = { match: isKernel, optimizer: toySgd() };
    const cases: readonly (readonly [Group[], RegExp])[] = [
      [[kernels], /each weight to be in a group but conv\/bias is in none\. End the list with a group without match/],
      [
        [kernels, { match: () => false, optimizer: toySgd() }, { optimizer: toySgd() }],
        /number 2 has none of conv\/kernel, /,
      ],
      [[{ optimizer: toySgd() }, kernels], /number 2 has none of/],
    ];
    for (const [list, expected] of cases) {
      await expectNoLeak(() =>
        expect(train(model, data, { optimizer: groups(list), epochs: 1, progress: false })).rejects.toThrow(expected),
      );
      await expectNoLeak(() => expect(() => stepper(model, { optimizer: groups(list) })).toThrow(expected));
    }
    // It is free again.
    await train(model, data, { optimizer: groups([{ optimizer: toySgd() }]), epochs: 1, progress: false });
  });

  it('to leave the first group open when the second cannot be opened', async () => {
    const model = toyModel();
    const broken: Link = {
      ...toySgd(),
      open: () => {
        throw new Error('from open');
      },
    };
    const optimizer = groups([{ match: isKernel, optimizer: toySgd() }, { optimizer: broken }]);
    await expectNoLeak(() => expect(() => stepper(model, { optimizer })).toThrow('from open'));
  });
});
