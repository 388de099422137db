import type { Numbers, WeightedSum } from '@frugal/core';
import { arrayLike, reduceInOrder } from '../numbers.js';
import type { Arrival, Group } from './cluster.js';

/** What a split gives one member. */
export interface Seat {
  readonly group: Group;
  readonly member: number;
}

const valuesOf = (arrivals: readonly Arrival[]): Numbers[] => arrivals.map(({ values }) => values as Numbers);

async function allReduce(arrivals: readonly Arrival[], fastest: () => Promise<WeightedSum>): Promise<void> {
  const parts = valuesOf(arrivals);
  const sum = await fastest();
  const first = parts[0] as Numbers;
  const result = arrayLike(first, first.length);
  reduceInOrder(parts, arrivals[0]?.operation.reduction ?? 'sum', result, sum);
  arrivals.forEach(({ resolve }, member) => {
    parts[member]?.set(result);
    resolve(undefined);
  });
}

function allGather(arrivals: readonly Arrival[]): void {
  const parts = valuesOf(arrivals);
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  for (const { resolve } of arrivals) {
    const result = arrayLike(parts[0] as Numbers, length);
    let offset = 0;
    for (const part of parts) {
      result.set(part, offset);
      offset += part.length;
    }
    resolve(result);
  }
}

function broadcast(arrivals: readonly Arrival[]): void {
  const root = arrivals[arrivals[0]?.operation.root ?? 0]?.values as Numbers;
  for (const { values, resolve } of arrivals) {
    if (values !== root) values?.set(root);
    resolve(undefined);
  }
}

/** Returns what is wrong with the lists of peers, if something is. */
function exchange(arrivals: readonly Arrival[]): string | undefined {
  for (const [member, { peers }] of arrivals.entries()) {
    for (const to of peers?.to ?? []) {
      if (!arrivals[to]?.peers?.from.includes(member)) {
        return `rank ${member} sends to rank ${to} in exchange, but rank ${to} does not receive from rank ${member}`;
      }
    }
    for (const from of peers?.from ?? []) {
      if (!arrivals[from]?.peers?.to.includes(member)) {
        return `rank ${member} receives from rank ${from} in exchange, but rank ${from} does not send to rank ${member}`;
      }
    }
  }
  const parts = valuesOf(arrivals);
  for (const { peers, resolve } of arrivals) resolve(peers?.from.map((from) => parts[from]?.slice()));
  return undefined;
}

function split(arrivals: readonly Arrival[], open: (members: readonly number[]) => Group): void {
  const colors = arrivals.map(({ color }) => color);
  for (const color of new Set(colors)) {
    const members = [...colors.keys()].filter((member) => colors[member] === color);
    const group = open(members);
    members.forEach((old, member) => arrivals[old]?.resolve({ group, member } satisfies Seat));
  }
}

/**
 * Carries out an operation that all members of a group have called, and resolves their promises: at once, but for a
 * reduction, which waits for what adds.
 *
 * @param fastest - what adds floats
 * @returns what is wrong between the ranks, in ranks of this group, if something is
 */
export function complete(
  arrivals: readonly Arrival[],
  open: (members: readonly number[]) => Group,
  fastest: () => Promise<WeightedSum>,
): string | undefined {
  const kind = arrivals[0]?.operation.kind;
  if (kind === 'exchange') return exchange(arrivals);
  if (kind === 'allReduce') void allReduce(arrivals, fastest);
  else if (kind === 'allGather') allGather(arrivals);
  else if (kind === 'broadcast') broadcast(arrivals);
  else if (kind === 'split') split(arrivals, open);
  else for (const { resolve } of arrivals) resolve(undefined);
  return undefined;
}
