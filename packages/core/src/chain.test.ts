import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Chain, openChain, openLinks } from './chain.js';
import type { Communicator } from './communicator.js';
import { FrugalError } from './errors.js';
import type { ExchangeLink, Link, Param, UpdateLink, WeightsLink } from './link.js';
import { clockAt } from './schedule.js';
import { openScope } from './scope.js';
import { bareRun, eachGradient, plainUpdate, toyAverage } from './testing/descriptions.js';
import { expectNoLeak } from './testing/engines.js';
import { twinRanks } from './testing/ranks.js';
import { toySgd } from './testing/toy.js';

const scale = (factor: number): Link => eachGradient(`scale ${factor}`, (g) => tf.mul(g, factor));
const shift = (offset: number): Link => eachGradient('shift', (g) => tf.add(g, offset));

/** A trivial exchange: the mean over ranks, as one flat sum. Proves the types of seam 3. */
const allReduce = (): ExchangeLink => ({
  kind: 'exchange',
  name: 'allReduce',
  open: ({ communicator }) => ({
    async exchange(gradients) {
      const result = new Map<string, tf.Tensor>();
      for (const [name, g] of gradients) {
        const values = Float32Array.from(await g.data());
        await communicator.allReduce(values);
        result.set(
          name,
          tf.tensor(
            values.map((v) => v / communicator.size),
            g.shape,
          ),
        );
      }
      return result;
    },
  }),
});
/** Another rank that always sends ones. */
const withOnes: Communicator = {
  ...twinRanks(2),
  allReduce: (values) => Promise.resolve(values.forEach((v, i) => (values[i] = v + 1))),
};

const param = (value: number): Param => ({
  name: `w${value}`,
  value: tf.tidy(() => tf.variable(tf.scalar(value), false)),
});
const scope = openScope(clockAt(0, 10), 0);
const read = (p: Param): number => p.value.dataSync()[0]!;

/** Opens links on weights that no model has. */
const open = (links: readonly Link[], params: readonly Param[], communicator?: Communicator): Chain => {
  const { context, setRates } = bareRun(params, communicator);
  const chain = openChain('test', links, context);
  setRates(chain.rateOf);
  return chain;
};

/** One step of a chain without exchanges. */
const step = (chain: Chain, p: Param, gradient: number): void => {
  const g = tf.scalar(gradient);
  chain.apply(new Map([[p.name, g]]), scope);
  g.dispose();
};

describe('the hyper-parameters of a chain', () => {
  it('are those of all links, exchange links included', () => {
    const withNumbers = <L extends Link>(link: L, numbers: Record<string, number>): L => ({
      ...link,
      open: (context) => ({ ...link.open(context), hyperparameters: () => numbers }),
    });
    const links = [withNumbers(scale(2), { factor: 2 }), withNumbers(allReduce(), { bits: 8 }), toySgd(0.5)];
    expect(open(links, []).hyperparameters(scope)).toEqual({ factor: 2, bits: 8, learningRate: 0.5 });
    expect(open([scale(2), plainUpdate()], []).hyperparameters(scope)).toEqual({});
  });
});

describe('chain', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('applies its links in the order given: (g + 1)·(−2) is not (−2g) + 1', () => {
    const run = (links: Link[]): number => {
      const p = param(0);
      step(open([...links, plainUpdate(-1)], [p]), p, 3);
      return read(p);
    };
    expect(run([shift(1), scale(-2)])).toBe(-8);
    expect(run([scale(-2), shift(1)])).toBe(-5);
  });

  it('gives the same bits whether its step is awaited or not', async () => {
    const run = async (awaited: boolean): Promise<number[]> => {
      const p = param(1);
      const chain = open([scale(0.3), shift(0.1), toySgd(0.1), toyAverage()], [p]);
      const weights: number[] = [];
      for (const g of [0.5, -0.25, 2]) {
        if (awaited) await chain.applyAsync(new Map([[p.name, tf.scalar(g)]]), scope);
        else step(chain, p, g);
        weights.push(read(p), chain.settled().get(p.name)!.dataSync()[0]!);
      }
      chain.dispose();
      p.value.dispose();
      return weights;
    };
    const plain = await expectNoLeak(() => run(false));
    expect(await expectNoLeak(() => run(true))).toEqual(plain);
    // v: .25, .25·.9 + .025, …; w = 1 − .1·v: heavy ball of 0.3·g + 0.1.
    const [first, , second, , third, mean] = plain as [number, number, number, number, number, number];
    expect(first).toBeCloseTo(0.975, 6);
    expect(second).toBeCloseTo(0.975 - 0.1 * (0.25 * 0.9 + 0.025), 6);
    expect(mean).toBeCloseTo((first + second + third) / 3, 6);
  });

  it('leaves a weight without a gradient alone', () => {
    const p = param(4);
    const chain = open([scale(1), toySgd()], [p]);
    chain.apply(new Map(), scope);
    expect(read(p)).toBe(4);
    chain.dispose();
  });

  it('awaits exchange links between gradient links and leaves no tensor behind', async () => {
    const run = async (links: Link[]): Promise<number> => {
      const p = param(0);
      const chain = open([...links, plainUpdate(-1)], [p], withOnes);
      await chain.applyAsync(new Map([[p.name, tf.scalar(3)]]), scope);
      const w = read(p);
      p.value.dispose();
      return w;
    };
    await expectNoLeak(async () => {
      // (3·2 + 1)/2·(−1); right before the update: (3 + 1)/2; two of them: ((3 + 1)/2 + 1)/2
      expect(await run([scale(2), allReduce(), scale(-1)])).toBe(-3.5);
      expect(await run([allReduce()])).toBe(2);
      expect(await run([allReduce(), allReduce()])).toBe(1.5);
      expect(await run([allReduce(), scale(2), allReduce(), scale(3)])).toBe(7.5);
    });
    expect(open([scale(2), allReduce(), plainUpdate()], []).exchange).toBe('allReduce');
    expect(open([scale(2), plainUpdate()], []).exchange).toBeUndefined();
  });

  it('passes on gradients that a link hands through, and disposes those that it drops', async () => {
    const drop: Link = {
      kind: 'gradient',
      name: 'drop',
      open: () => ({ transform: (gradients) => new Map([...gradients].slice(1)) }),
    };
    const [a, b] = [param(1), param(2)];
    await expectNoLeak(async () => {
      const chain = open([drop, plainUpdate()], [a, b]);
      const all = new Map([a, b].map(({ name }) => [name, tf.scalar(10)]));
      await chain.applyAsync(all, scope);
    });
    expect([read(a), read(b)]).toEqual([1, -8]);
  });

  it('awaits an update that exchanges, outside of any tidy, before the links that follow the weights', async () => {
    const seen: number[] = [];
    const p = param(0);
    const gossip: UpdateLink = {
      ...plainUpdate(),
      name: 'gossip',
      exchanges: true,
      open: ({ communicator }) => ({
        async apply(gradients) {
          const values = Float32Array.from(await gradients.get(p.name)!.data());
          await communicator.allReduce(values);
          tf.tidy(() => p.value.assign(tf.scalar(values[0]!)));
        },
      }),
    };
    const watch: WeightsLink = {
      kind: 'weights',
      name: 'watch',
      open: () => ({ moved: () => void seen.push(read(p)) }),
    };
    await expectNoLeak(async () => {
      const chain = open([scale(2), gossip, watch], [p], withOnes);
      expect(chain.exchange).toBe('gossip');
      await chain.applyAsync(new Map([[p.name, tf.scalar(3)]]), scope);
    });
    expect(seen).toEqual([7]);
  });

  it('lets its last links follow weights that something else has moved', () => {
    const p = param(0);
    const { context } = bareRun([p]);
    const chain = openLinks([toyAverage()], context, () => undefined);
    for (const value of [2, 4]) {
      tf.tidy(() => p.value.assign(tf.scalar(value)));
      chain.moved(scope);
    }
    expect(chain.settled().get(p.name)!.dataSync()[0]).toBe(3);
    expect(read(p)).toBe(4);
    chain.dispose();
  });

  it('gives state that stands twice a name of its own, and frees all of it', async () => {
    const p = param(0);
    await expectNoLeak(() => {
      const chain = open([toySgd(), toyAverage(), toyAverage()], [p]);
      expect([...chain.state().keys()]).toEqual([
        'toySgd/velocity/w0',
        'toyAverage/count',
        'toyAverage/mean/w0',
        'toyAverage/count#2',
        'toyAverage/mean/w0#2',
      ]);
      expect(new Set(chain.state().values()).size).toBe(5);
      chain.dispose();
    });
    p.value.dispose();
  });

  it('prepares its links one after the other, and names the first that must be', async () => {
    const seen: string[] = [];
    const loading = (name: string): Link => ({
      kind: 'gradient',
      name,
      open: () => ({
        transform: (gradients) => new Map(gradients),
        async prepare() {
          seen.push(`${name}<`);
          await Promise.resolve();
          seen.push(`${name}>`);
        },
      }),
    });
    const chain = open([scale(1), loading('a'), loading('b'), plainUpdate()], []);
    expect(chain.prepares).toBe('a');
    await chain.prepare();
    expect(seen).toEqual(['a<', 'a>', 'b<', 'b>']);
    expect(open([plainUpdate()], []).prepares).toBeUndefined();
  });

  it('tells its links the rate of a weight, and refuses where nothing moves it', () => {
    const p = param(0);
    const rates: number[] = [];
    const asking: Link = {
      kind: 'gradient',
      name: 'asking',
      open: (context) => ({
        transform(gradients, { clock }) {
          rates.push(context.rateOf(p)(clock));
          return new Map(gradients);
        },
      }),
    };
    const chain = open([asking, toySgd('0.5 * (1 - t)')], [p]);
    const g = tf.scalar(1);
    for (const at of [0, 5]) chain.apply(new Map([[p.name, g]]), openScope(clockAt(at, 10), 0));
    expect(rates).toEqual([0.5, 0.25]);
    const idle = open([asking, { ...plainUpdate(), rateOf: () => undefined }], [p]);
    expect(() => idle.apply(new Map([[p.name, g]]), scope)).toThrow(/expected an update.*w0, but nothing moves/);
    g.dispose();
    chain.dispose();
  });

  it('refuses to be empty', () => {
    expect(() => open([], [])).toThrow(/^test: expected exactly one link that moves the weights but \[\] has none/);
  });

  it('frees what is open already when a later link cannot be opened', async () => {
    const p = param(0);
    const broken: Link = {
      ...toySgd(),
      open: () => {
        throw new FrugalError('CONFIG', 'from open');
      },
    };
    const holding: Link = {
      kind: 'gradient',
      name: 'holding',
      open() {
        const held = tf.tidy(() => tf.variable(tf.scalar(1), false));
        return { transform: (gradients) => new Map(gradients), dispose: () => held.dispose() };
      },
    };
    await expectNoLeak(() => expect(() => open([holding, broken], [p])).toThrow('from open'));
    p.value.dispose();
  });
});
