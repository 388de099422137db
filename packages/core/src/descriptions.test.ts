import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { attach } from './attach.js';
import { batches } from './data.js';
import { FrugalError } from './errors.js';
import { groups } from './groups.js';
import type { GradientLink, Link } from './link.js';
import type { Method } from './method.js';
import type { Reporting, RunContext } from './opened.js';
import { stepper } from './stepper.js';
import { methodOf, toyAverage } from './testing/descriptions.js';
import { describeEngines, expectNoLeak } from './testing/engines.js';
import { firstBatch, toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import { train } from './train.js';

const data = toyImages(48);

/** Two runs of a few steps, whose steps take turns; the weights of both. */
async function interleaved(first: Link | Link[], second: Link | Link[], methods: readonly Method[][] = [[], []]) {
  const models = [toyModel(1), toyModel(2)] as const;
  const [a, b] = [first, second].map((optimizer, i) =>
    stepper(models[i as 0 | 1], { optimizer, seed: i, methods: methods[i]! }),
  );
  for (const batch of batches(data, { batchSize: 12 })) {
    await a!.step(batch);
    await b!.step(batch);
    await b!.step(batch);
  }
  a!.dispose();
  // The end of one run is not that of the other.
  for (const batch of batches(data, { batchSize: 24 })) await b!.step(batch);
  b!.dispose();
  return models.map(weightsOf);
}

/** Two models in `fit`, one epoch of each in turn. */
async function fits(first: Link, second: Link): Promise<number[][]> {
  const models = [toyModel(1), toyModel(2)] as const;
  const { xs, ys } = firstBatch(data, 48);
  const attached = [first, second].map((link, i) => {
    const model = models[i as 0 | 1];
    const attachment = attach(model);
    const optimizer = attachment.optimizer(link);
    model.compile({ optimizer, loss: 'categoricalCrossentropy' });
    return { attachment, optimizer };
  });
  for (let epoch = 0; epoch < 2; epoch++)
    for (const model of models) await model.fit(xs, ys, { epochs: 1, batchSize: 16, shuffle: false, verbose: 0 });
  for (const { attachment, optimizer } of attached) {
    optimizer.dispose();
    attachment.detach();
  }
  tf.dispose([xs, ys]);
  return models.map(weightsOf);
}

await describeEngines('one description', () => {
  it('in two runs whose steps take turns is two links, to the bit', async () => {
    const link = toySgd(0.05);
    const average = toyAverage();
    const expected = await interleaved(toySgd(0.05), toySgd(0.05));
    expect(await interleaved(link, link)).toEqual(expected);
    // Used before, it is as new.
    expect(await interleaved([link, average], [link, average])).toEqual(expected);
    // The control: momentum is there to be shared.
    expect(await interleaved(toySgd(0.05, 0), toySgd(0.05, 0))).not.toEqual(expected);
  });

  it('in two fits is two links, to the bit', async () => {
    const link = toySgd(0.05);
    expect(await fits(link, link)).toEqual(await fits(toySgd(0.05), toySgd(0.05)));
  });

  it('of a method with state is two of them', async () => {
    // Dampens dX by how often it was called: state that another run would move.
    const counting = (): Method => ({
      name: 'counting',
      source: 'test',
      open() {
        let calls = 0;
        return {
          rule: {
            name: 'counting',
            bias: 'biased',
            inputGrad: ({ exact, count }, dy, w, shape) => {
              if (count) calls++;
              return tf.mul(exact.inputGrad(dy, w, shape), 1 / (1 + calls));
            },
          },
          report: () => calls,
        };
      },
    });
    const link = toySgd(0.05);
    const method = counting();
    const shared = await interleaved(link, link, [[method], [method]]);
    const apart = await interleaved(toySgd(0.05), toySgd(0.05), [[counting()], [counting()]]);
    expect(shared).toEqual(apart);
    expect(shared).not.toEqual(await interleaved(link, link));
  });
});

/** What a run is asked about that nobody has opened, or that tells nothing. */
function refusal(ask: () => unknown): string {
  try {
    ask();
  } catch (error) {
    expect(FrugalError.is(error, 'CONFIG')).toBe(true);
    return (error as Error).message;
  }
  throw new Error('nothing was refused');
}

describe('a run', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('opens each description once, with what it has, and disposes it once', async () => {
    const log: string[] = [];
    let given: RunContext | undefined;
    const logged = (name: string): GradientLink => ({
      kind: 'gradient',
      name,
      open(context) {
        given = context;
        log.push(`open ${name}`);
        return {
          transform: (gradients) => new Map(gradients),
          prepare: () => Promise.resolve(void log.push(`prepare ${name}`)),
          dispose: () => void log.push(`dispose ${name}`),
        };
      },
    });
    const method: Method = {
      name: 'm',
      source: 'test',
      links: [logged('brought')],
      open() {
        log.push('open m');
        return {
          prepare: () => Promise.resolve(void log.push('prepare m')),
          dispose: () => void log.push('dispose m'),
        };
      },
    };
    const model = toyModel(1, { batchNorm: true });
    await train(model, data, {
      methods: [method],
      optimizer: [logged('listed'), toySgd()],
      epochs: 1,
      batchSize: 24,
      progress: false,
    });
    expect(log.slice(0, 6)).toEqual([
      'open m',
      'open brought',
      'open listed',
      'prepare m',
      'prepare brought',
      'prepare listed',
    ]);
    expect(log.slice(6).sort()).toEqual(['dispose brought', 'dispose listed', 'dispose m']);
    expect(given!.model).toBe(model);
    expect(given!.communicator.size).toBe(1);
    expect(given!.sites.map(({ name }) => name)).toEqual(['conv', 'conv2', 'hidden', 'head']);
    expect(given!.params.map(({ name }) => name)).toContain('conv/kernel');
    expect(given!.statistics.map(({ name }) => name)).toEqual(['norm/moving_mean', 'norm/moving_variance']);
  });

  it('makes what the parts of a method share once, and another run makes its own', async () => {
    const key = {};
    const made: object[] = [];
    const seen: object[] = [];
    const share = (context: RunContext): object =>
      context.once(key, () => {
        const shared = {};
        made.push(shared);
        return shared;
      });
    const link: GradientLink = {
      kind: 'gradient',
      name: 'part',
      open(context) {
        seen.push(share(context));
        return { transform: (gradients) => new Map(gradients) };
      },
    };
    const method: Method = {
      name: 'whole',
      source: 'test',
      links: [link],
      open(context) {
        seen.push(share(context));
        return {};
      },
    };
    const options = { methods: [method], optimizer: toySgd(), epochs: 1, progress: false as const };
    await train(toyModel(1), data, options);
    await train(toyModel(1), data, options);
    expect(made).toHaveLength(2);
    expect(seen).toEqual([made[0], made[0], made[1], made[1]]);
    expect(seen[0]).toBe(seen[1]);
    expect(seen[1]).not.toBe(seen[2]);
    // What was made is kept also where it is undefined.
    const attachment = attach(toyModel(1));
    let times = 0;
    for (let i = 0; i < 2; i++)
      attachment.context.once(method, () => {
        times++;
      });
    expect(times).toBe(1);
    attachment.detach();
  });

  it('tells what its links and methods report, at its end or as it goes; nothing of others', async () => {
    const average = toyAverage();
    const link = toySgd();
    const rule = { name: 'r', bias: 'unbiased' } as const;
    const telling: Method<string> = {
      name: 'telling',
      source: 'test',
      open: () => ({ rule, report: () => 'told' }),
    };
    const options = { methods: [telling], optimizer: [link, average] };
    const report = await train(toyModel(1), data, { ...options, epochs: 2, batchSize: 24, progress: false });
    const steps: number = report.of(average);
    const told: string = report.of(telling);
    expect([steps, told]).toEqual([4, 'told']);
    const { step, of, attachment, dispose } = stepper(toyModel(1), options);
    expect([of(average), attachment.of(average), of(telling)]).toEqual([0, 0, 'told']);
    for (const batch of batches(data, { batchSize: 24 })) await step(batch);
    expect([of(average), attachment.of(average)]).toEqual([2, 2]);
    // The report of the run before stays what it was.
    expect(report.of(average)).toBe(4);
    const foreign: Reporting<unknown>[] = [toyAverage(), methodOf({ report: () => 1 }, { name: 'foreign' })];
    // An equal one is another one; toySgd is opened and tells nothing.
    for (const other of [...foreign, link, { ...average }])
      for (const ask of [report.of, of, attachment.of])
        expect(refusal(() => ask(other as Reporting<unknown>))).toMatch(
          new RegExp(`^${other.name}: expected a link or a method that this run has opened and that makes a report`),
        );
    dispose();
  });

  it('tells of links inside groups', async () => {
    const average = toyAverage();
    const optimizer = groups([
      { match: ({ value }) => value.rank > 1, optimizer: [toySgd(), average] },
      { optimizer: toySgd() },
    ]);
    const report = await train(toyModel(1), data, { optimizer, epochs: 1, batchSize: 24, progress: false });
    expect(report.of(average)).toBe(2);
  });

  it('keeps the state of methods, which is freed with it', async () => {
    const method: Method = {
      name: 'stateful',
      source: 'test',
      open() {
        const kept = tf.tidy(() => tf.variable(tf.zeros([2]), false));
        return { state: () => new Map([['stateful/kept', kept]]), dispose: () => kept.dispose() };
      },
    };
    const model = toyModel(1);
    await expectNoLeak(() => {
      const attachment = attach(model, method);
      expect([...attachment.opened.state().keys()]).toEqual(['stateful/kept']);
      attachment.detach();
      attachment.detach();
    });
  });

  it('frees the methods that are open already when a later one cannot be opened', async () => {
    const held: Method = {
      name: 'held',
      source: 'test',
      open() {
        const kept = tf.tidy(() => tf.variable(tf.zeros([2]), false));
        return { dispose: () => kept.dispose() };
      },
    };
    const broken: Method = {
      name: 'broken',
      source: 'test',
      open() {
        throw new Error('from open');
      },
    };
    const model = toyModel(1);
    await expectNoLeak(() => expect(() => attach(model, held, broken)).toThrow('from open'));
    attach(model).detach();
  });

  it('frees all that it has opened where one method is given twice', () => {
    let open = 0;
    const twice: Method = {
      name: 'twice',
      source: 'test',
      open() {
        open++;
        return {
          dispose() {
            open--;
          },
        };
      },
    };
    // Refused or taken as one: nothing of it stays.
    const model = toyModel(1);
    try {
      attach(model, twice, twice).detach();
    } catch (error) {
      expect(FrugalError.is(error)).toBe(true);
    }
    expect(open).toBe(0);
    attach(model).detach();
  });
});
