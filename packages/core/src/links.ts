import { FrugalError, show } from './errors.js';
import type { Link, UpdateLink } from './link.js';
import type { Method } from './method.js';

/** Where each kind stands. */
const PLACE: Record<Link['kind'], number> = { gradient: 0, exchange: 0, update: 1, weights: 2 };

const names = (links: readonly Link[]): string => `[${links.map(({ name }) => name).join(', ')}]`;

const ordered = (links: readonly Link[]): Link[] => [...links].sort((a, b) => PLACE[a.kind] - PLACE[b.kind]);

const RULE = 'Gradients are changed first, then one link moves the weights, then what follows the weights';

function checkLink(owner: string, link: unknown): asserts link is Link {
  const { kind, open } = (link ?? {}) as Partial<Link>;
  if (kind !== undefined && kind in PLACE && typeof open === 'function') return;
  const name = (link as { getClassName?(): string } | null)?.getClassName?.() ?? show(link);
  throw new FrugalError(
    'CONFIG',
    `${owner}: expected links, as sgd({ learningRate: 0.1 }), but received ${name}. Optimizers of TensorFlow.js have their counterparts in @frugal/optim: write sgd({ learningRate, momentum }) or adam({ learningRate }).`,
  );
}

function refuseUpdates(owner: string, links: readonly Link[], updates: readonly Link[]): never {
  const fix =
    updates.length === 0
      ? `Put one behind: [${[
          ...ordered(links)
            .filter(({ kind }) => PLACE[kind] === 0)
            .map(({ name }) => name),
          'sgd({ … })',
          ...links.filter(({ kind }) => kind === 'weights').map(({ name }) => name),
        ].join(', ')}].`
      : `Keep one: ${names(ordered(links.filter((link) => link.kind !== 'update' || link === updates[0])))}; groups([…]) gives parts of the weights links of their own.`;
  throw new FrugalError(
    'CONFIG',
    `${owner}: expected exactly one link that moves the weights but ${names(links)} has ${updates.length === 0 ? 'none' : updates.length}. ${RULE}. ${fix}`,
  );
}

/**
 * Checks that links make a chain: gradients, exactly one update, weights.
 *
 * @returns the update
 * @throws FrugalError `CONFIG`, with the right order
 */
export function checkChain(owner: string, links: readonly unknown[]): UpdateLink {
  const checked = links.map((link) => {
    checkLink(owner, link);
    return link;
  });
  const updates = checked.filter((link) => link.kind === 'update');
  const [update] = updates;
  if (update === undefined || updates.length > 1) return refuseUpdates(owner, checked, updates);
  const right = ordered(checked);
  if (right.some((link, i) => link !== checked[i])) {
    throw new FrugalError(
      'CONFIG',
      `${owner}: expected the order ${names(right)} but received ${names(checked)}. ${RULE}.`,
    );
  }
  const twice = checked.find((link, i) => checked.indexOf(link) !== i);
  if (twice)
    throw new FrugalError('CONFIG', `${owner}: ${twice.name} is listed twice in ${names(checked)}. Make two of it.`);
  return update;
}

/** Links and those inside them. */
export function everyLink(links: readonly Link[]): Link[] {
  return links.flatMap((link) => [link, ...(link.kind === 'update' ? everyLink(link.parts ?? []) : [])]);
}

/** The name of the first link that must be awaited, if there is one. */
export function exchangeIn(links: readonly Link[]): string | undefined {
  return everyLink(links).find((link) => link.kind === 'exchange' || (link.kind === 'update' && link.exchanges))?.name;
}

/**
 * The links of a run, in order: those that the methods bring, unless they are listed among the ones given, then these.
 *
 * @throws {@link FrugalError} `CONFIG` for an exchange link of a method that is not listed: whether it stands before or after the sum
 * over ranks is another algorithm
 */
export function linksOf(methods: readonly Method[], given: Link | readonly Link[]): Link[] {
  const listed = [given].flat() as Link[];
  const known = everyLink(listed.filter((link) => link?.kind !== undefined));
  const brought = methods.flatMap((method) => method.links ?? []).filter((link) => !known.includes(link));
  const unplaced = brought.find((link) => link.kind === 'exchange');
  if (unplaced)
    throw new FrugalError(
      'CONFIG',
      `${unplaced.name}: expected its link, which exchanges with other ranks, to be listed in optimizer but it is not. Put it where it belongs, as in optimizer: [allReduce(), method.link, sgd({ … })].`,
    );
  return [
    ...brought.filter(({ kind }) => PLACE[kind] === 0),
    ...listed,
    ...brought.filter(({ kind }) => PLACE[kind] > 0),
  ];
}
