import type * as tf from '@tensorflow/tfjs';
import { type Chain, openChain } from './chain.js';
import { checkOptions } from './check.js';
import { FrugalError, show } from './errors.js';
import type { Link, Param, UpdateLink, Updates } from './link.js';
import { checkChain, exchangeIn } from './links.js';
import type { RunContext, State } from './opened.js';
import type { Scope } from './scope.js';

/** Some of the weights, and the links that are theirs. */
export interface Group {
  /** Which weights: those of no earlier group for which it is true. Default: all that are left. */
  readonly match?: (param: Param) => boolean;
  /** Their links, in the order of a chain. */
  readonly optimizer: Link | readonly Link[];
}

interface Part {
  readonly match: (param: Param) => boolean;
  readonly links: readonly Link[];
  readonly update: UpdateLink;
}

function settle(given: readonly Group[]): Part[] {
  if (!Array.isArray(given) || given.length === 0)
    throw new FrugalError(
      'CONFIG',
      `groups: expected a list of groups but received ${show(given)}. Pass [{ match, optimizer }, …].`,
    );
  return given.map((group: Group, i) => {
    const owner = `groups, number ${i + 1}`;
    if (typeof group !== 'object' || group === null)
      throw new FrugalError(
        'CONFIG',
        `${owner}: expected a group but received ${show(group)}. Pass { match, optimizer }.`,
      );
    checkOptions(owner, group, ['match', 'optimizer']);
    const { match = () => true } = group;
    if (typeof match !== 'function')
      throw new FrugalError(
        'CONFIG',
        `${owner}: expected match to be a function of a Param but received ${show(match)}.`,
      );
    const links = [group.optimizer].flat() as Link[];
    return { match, links, update: checkChain(owner, links) };
  });
}

/** The weights of each part. Throws `CONFIG` for a weight of none and a part of none. */
function divide(parts: readonly Part[], params: readonly Param[]): Param[][] {
  const own = parts.map((): Param[] => []);
  for (const param of params) {
    const at = parts.findIndex(({ match }) => match(param));
    if (at < 0)
      throw new FrugalError(
        'CONFIG',
        `groups: expected each weight to be in a group but ${param.name} is in none. End the list with a group without match.`,
      );
    own[at]?.push(param);
  }
  const empty = own.findIndex((list) => list.length === 0);
  if (empty >= 0)
    throw new FrugalError(
      'CONFIG',
      `groups: expected weights in each group but number ${empty + 1} has none of ${params.map(({ name }) => name).join(', ')}. Look at its match, or drop it.`,
    );
  return own;
}

const partOf = (updates: Updates, params: readonly Param[]): Map<string, tf.Tensor> =>
  new Map(
    params.flatMap(({ name }) => {
      const update = updates.get(name);
      return update ? [[name, update] as const] : [];
    }),
  );

interface OpenedPart {
  readonly params: readonly Param[];
  readonly chain: Chain;
}

/** Opens the chain of each part; where one refuses, those before it are freed. */
function openParts(parts: readonly Part[], context: RunContext): OpenedPart[] {
  const own = divide(parts, context.params);
  const opened: OpenedPart[] = [];
  try {
    for (const [i, { links }] of parts.entries()) {
      const params = own[i] as Param[];
      opened.push({ params, chain: openChain('groups', links, { ...context, params }) });
    }
  } catch (error) {
    for (const { chain } of opened) chain.dispose();
    throw error;
  }
  return opened;
}

/**
 * Parts of the weights with links of their own: other rates for a pre-trained body, no decay for biases, one optimizer for
 * matrices and another for the rest. An update, made of others; what stands before it sees all weights.
 *
 * State: that of the links, as `group1/…`. Cost: that of the links.
 *
 * @param list - each weight belongs to the first group whose `match` is true
 * @throws FrugalError `CONFIG` for a group that is no chain; when a run opens it, for a weight of no group and a group of none
 * @example
 * ```ts
 * groups([
 *   { match: ({ value }) => value.rank >= 2, optimizer: [shampoo(), sgd({ learningRate: 0.1 })] },
 *   { optimizer: sgd({ learningRate: 0.01 }) },
 * ]);
 * ```
 */
export function groups(list: readonly Group[]): UpdateLink {
  const parts = settle(list);
  const links = parts.flatMap((part) => part.links);
  const exchanges = exchangeIn(links) !== undefined;
  return {
    kind: 'update',
    name: 'groups',
    parts: links,
    ...(exchanges && { exchanges }),
    rateOf: (param) => parts.find(({ match }) => match(param))?.update.rateOf(param),
    open(context) {
      const chains = openParts(parts, context);
      const named = <T>(
        from: (chain: (typeof chains)[number]['chain']) => Iterable<readonly [string, T]>,
      ): [string, T][] =>
        chains.flatMap(({ chain }, i) =>
          [...from(chain)].map(([name, value]): [string, T] => [`group${i + 1}/${name}`, value]),
        );
      const applyAll = async (updates: Updates, scope: Scope): Promise<void> => {
        for (const { params, chain } of chains) {
          const mine = partOf(updates, params);
          // The chain disposes what it is given; the gradients stay the caller's.
          await chain.applyAsync(new Map([...mine].map(([name, g]) => [name, g.clone()])), scope);
        }
      };
      const prepares = chains.some(({ chain }) => chain.prepares !== undefined);
      return {
        ...(prepares && {
          prepare: async () => {
            for (const { chain } of chains) await chain.prepare();
          },
        }),
        apply(updates, scope) {
          if (exchanges) return applyAll(updates, scope);
          for (const { params, chain } of chains) chain.apply(partOf(updates, params), scope);
        },
        state: (): State => new Map(named((chain) => chain.state())),
        hyperparameters: (scope) => Object.fromEntries(named((chain) => Object.entries(chain.hyperparameters(scope)))),
        settled: () => new Map(chains.flatMap(({ chain }) => [...chain.settled()])),
        dispose: () => chains.forEach(({ chain }) => chain.dispose()),
      };
    },
  };
}
