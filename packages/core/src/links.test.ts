import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { attach } from './attach.js';
import { FrugalError } from './errors.js';
import { groups } from './groups.js';
import type { Link } from './link.js';
import { checkChain, exchangeIn, linksOf } from './links.js';
import type { Method } from './method.js';
import { stepper } from './stepper.js';
import { eachGradient, methodOf, plainUpdate, toyAverage } from './testing/descriptions.js';
import { meanGradient } from './testing/ranks.js';
import { toyImages, toyModel, toySgd, weightsOf } from './testing/toy.js';
import { train } from './train.js';

const named = <L extends Link>(link: L, name: string): L => ({ ...link, name });
const gradient = eachGradient('gradient', (g) => g);
const exchange = named(meanGradient(), 'exchange');
const update = named(toySgd(), 'update');
const update2 = named(plainUpdate(), 'update2');
const weights = named(toyAverage(), 'weights');
const ALL: readonly Link[] = [gradient, exchange, update, update2, weights];

/** Every order of `count` of these links. */
function permutations(count: number, from: readonly Link[] = ALL): Link[][] {
  if (count === 0) return [[]];
  return from.flatMap((link) =>
    permutations(
      count - 1,
      from.filter((other) => other !== link),
    ).map((rest) => [link, ...rest]),
  );
}

const listed = (links: readonly Link[]): string => `[${links.map(({ name }) => name).join(', ')}]`;
const isUpdate = (link: Link): boolean => link === update || link === update2;

/** The order in which these links would make a chain, by the rule in words. */
function rightOrder(links: readonly Link[]): Link[] {
  const before = links.filter((link) => link === gradient || link === exchange);
  return [...before, ...links.filter(isUpdate), ...links.filter((link) => link === weights)];
}

/** What refuses, with its code; undefined where nothing does. */
function refusal(body: () => unknown): string | undefined {
  try {
    body();
    return undefined;
  } catch (error) {
    expect(FrugalError.is(error, 'CONFIG')).toBe(true);
    return (error as Error).message;
  }
}

const orders = [...permutations(2), ...permutations(3)].map((links) => [listed(links), links] as const);

describe('an order of links', () => {
  it.each(orders)('%s is a chain or is refused with the right order', (text, links) => {
    const updates = links.filter(isUpdate);
    const right = rightOrder(links);
    const message = refusal(() => checkChain('test', links));
    if (updates.length === 1 && listed(right) === text) {
      expect(message).toBeUndefined();
      expect(checkChain('test', links)).toBe(updates[0]);
    } else if (updates.length === 1) {
      expect(message).toContain(`test: expected the order ${listed(right)} but received ${text}.`);
    } else if (updates.length === 2) {
      expect(message).toContain(`exactly one link that moves the weights but ${text} has 2.`);
      // The way out keeps one of them, in the right order.
      expect(message).toContain(`Keep one: ${listed(right.filter((link) => link !== updates[1]))}`);
    } else {
      expect(message).toContain(`exactly one link that moves the weights but ${text} has none.`);
      const fix = [...right.filter((link) => link !== weights).map(({ name }) => name), 'sgd({ … })'];
      const after = right.includes(weights) ? ['weights'] : [];
      expect(message).toContain(`[${[...fix, ...after].join(', ')}]`);
    }
  });

  it('is right in 6 of 20 pairs and in 8 of 60 triples, counted by hand', () => {
    const accepted = (count: number): string[] =>
      permutations(count)
        .filter((links) => refusal(() => checkChain('test', links)) === undefined)
        .map(listed);
    expect(accepted(2).sort()).toEqual(
      [
        '[gradient, update]',
        '[gradient, update2]',
        '[exchange, update]',
        '[exchange, update2]',
        '[update, weights]',
        '[update2, weights]',
      ].sort(),
    );
    // Two updates, behind both of the others in two orders, or behind one of them and before weights.
    expect(accepted(3)).toHaveLength(2 * (2 + 2));
  });

  it('holds for one link too, and the same link stands once', () => {
    for (const link of ALL) expect(refusal(() => checkChain('test', [link])) === undefined).toBe(isUpdate(link));
    expect(refusal(() => checkChain('test', [gradient, gradient, update]))).toMatch(
      /gradient is listed twice in \[gradient, gradient, update\]/,
    );
    expect(refusal(() => checkChain('test', [update, weights, weights]))).toContain('weights is listed twice');
    expect(refusal(() => checkChain('test', [update, update]))).toContain('[update, update] has 2');
    // Two of one kind are two links.
    expect(refusal(() => checkChain('test', [gradient, { ...gradient }, update, weights, toyAverage()]))).toBe(
      undefined,
    );
  });
});

describe('whoever takes links', () => {
  beforeAll(() => tf.setBackend('cpu'));
  const data = toyImages(6);
  const caught = (run: Promise<unknown>): Promise<unknown> =>
    run.then(
      () => undefined,
      (error: unknown) => error,
    );

  /** What `train`, `stepper`, `optimizer` and `groups` say of these links: each refuses, or a failed expectation. */
  async function allRefuse(links: unknown): Promise<string[]> {
    const optimizer = links as Link[];
    const model = toyModel();
    const before = weightsOf(model);
    const attachment = attach(toyModel());
    const errors = [
      await caught(train(model, data, { optimizer, epochs: 1, progress: false })),
      await caught(Promise.resolve().then(() => stepper(model, { optimizer }))),
      await caught(Promise.resolve().then(() => attachment.optimizer(optimizer))),
      await caught(Promise.resolve().then(() => groups([{ optimizer }]))),
    ];
    attachment.detach();
    expect(weightsOf(model)).toEqual(before);
    // Nothing stays attached.
    attach(model).detach();
    for (const error of errors) expect(FrugalError.is(error, 'CONFIG'), String(error)).toBe(true);
    return errors.map((error) => (error as Error).message);
  }

  it('refuses links without an update: they would climb the loss', async () => {
    for (const message of await allRefuse([gradient])) expect(message).toContain('[gradient, sgd({ … })]');
    for (const message of await allRefuse(gradient)) expect(message).toContain('has none');
    for (const message of await allRefuse([])) expect(message).toContain('has none');
    for (const message of await allRefuse([weights])) expect(message).toContain('[sgd({ … }), weights]');
  });

  it('refuses wrong orders and two updates', async () => {
    for (const message of await allRefuse([update, gradient]))
      expect(message).toContain('expected the order [gradient, update] but received [update, gradient]');
    for (const message of await allRefuse([update, update2])) expect(message).toContain('[update, update2] has 2');
  });

  it('refuses what is no link, and says what to write in place of an optimizer of TensorFlow.js', async () => {
    for (const stock of [tf.train.sgd(0.1), tf.train.adam(0.1)]) {
      for (const message of await allRefuse(stock)) {
        expect(message).toContain(`but received ${stock.getClassName()}`);
        expect(message).toContain('write sgd({ learningRate, momentum }) or adam({ learningRate })');
      }
      for (const message of await allRefuse([gradient, stock])) expect(message).toContain('expected links');
    }
    for (const wrong of [
      undefined,
      null,
      'sgd',
      0.1,
      {},
      toySgd,
      [undefined],
      [update, null],
      { ...update, kind: 'x' },
    ])
      for (const message of await allRefuse(wrong)) expect(message).toContain('expected links');
  });
});

describe('the links of methods', () => {
  it('stand where they are listed, otherwise at the head and at the end', () => {
    const [own, other] = [eachGradient('own', (g) => g), eachGradient('other', (g) => g)];
    const last = toySgd();
    const bringing = methodOf({}, { links: [own] });
    expect(linksOf([bringing], [other, last])).toEqual([own, other, last]);
    expect(linksOf([bringing], [other, own, last])).toEqual([other, own, last]);
    expect(linksOf([bringing], last)).toEqual([own, last]);
    const following = methodOf({}, { links: [weights, own] });
    expect(linksOf([following], [other, last])).toEqual([own, other, last, weights]);
    // Listed inside a group, it is listed.
    const inside = groups([{ optimizer: [own, last] }]);
    expect(linksOf([bringing], [other, inside])).toEqual([other, inside]);
    expect(linksOf([], last)).toEqual([last]);
  });

  it('are refused where they exchange and nobody has placed them', () => {
    const method: Method = methodOf({}, { name: 'm', links: [exchange] });
    expect(refusal(() => linksOf([method], update))).toMatch(/^exchange: expected its link.*to be listed in optimizer/);
    expect(linksOf([method], [gradient, exchange, update])).toEqual([gradient, exchange, update]);
  });

  it('must be awaited where one of them exchanges, also inside groups', () => {
    const nested = groups([{ match: () => true, optimizer: update2 }, { optimizer: [exchange, update] }]);
    expect([exchangeIn([gradient, update]), exchangeIn([gradient, exchange, update])]).toEqual([undefined, 'exchange']);
    expect(exchangeIn([groups([{ optimizer: nested }])])).toBe('groups');
    expect(exchangeIn([groups([{ optimizer: [gradient, update] }])])).toBeUndefined();
    expect(exchangeIn([{ ...update, exchanges: true }])).toBe('update');
  });
});
