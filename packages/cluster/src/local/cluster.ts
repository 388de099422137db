import { fastestSum, FrugalError, type Numbers, type Peers, type WeightedSum } from '@frugal/core';
import { agrees, describe, type Operation } from '../operation.js';
import { complete } from './complete.js';

/** One rank's call of an operation. */
export interface Arrival {
  readonly operation: Operation;
  readonly values: Numbers | undefined;
  readonly peers: Peers | undefined;
  readonly color: number | undefined;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: FrugalError) => void;
}

/** The calls of one operation by the ranks of a group; complete when all have called. */
export interface Meeting {
  /** From 1, within its group. */
  readonly ordinal: number;
  /** By member. */
  readonly arrivals: (Arrival | undefined)[];
  readonly timer: NodeJS.Timeout | undefined;
}

/** The ranks of one communicator. */
export interface Group {
  /** Ranks of the whole cluster, by member. */
  readonly ranks: readonly number[];
  /** Operations called so far, by member. */
  readonly counts: number[];
  /** What is not complete, by ordinal. */
  readonly meetings: Map<number, Meeting>;
}

/** All ranks of one process: what they wait for, and how they fail together. */
export interface Cluster {
  readonly size: number;
  /** Resolves when the cluster has failed. */
  readonly failed: Promise<FrugalError>;
  /** A new communicator's group. */
  open(ranks: readonly number[]): Group;
  /** A member of a group calls its next operation. */
  join(group: Group, member: number, arrival: Arrival): void;
  /** A rank will call no more. */
  end(rank: number): void;
  /** Rejects what is pending and all that comes. The first failure counts. */
  fail(error: FrugalError): void;
  /** Fails because nothing can wake the ranks any more. */
  stall(why: string): void;
}

/** Names of a group's own count: the whole cluster needs no name. */
const within = (group: Group, size: number): string =>
  group.ranks.length === size ? '' : ` among ranks ${group.ranks.join(', ')}`;

interface State {
  readonly size: number;
  readonly timeoutSeconds: number;
  readonly groups: Group[];
  readonly ended: Set<number>;
  readonly tellFailure: (error: FrugalError) => void;
  /** Loaded by the first reduction, once. */
  sum: Promise<WeightedSum> | undefined;
  failure: FrugalError | undefined;
}

function waitsIn(state: State, rank: number): string {
  for (const group of state.groups) {
    const member = group.ranks.indexOf(rank);
    for (const { ordinal, arrivals } of group.meetings.values()) {
      const arrival = arrivals[member];
      if (arrival) {
        return `waits in ${describe(arrival.operation)} (its operation ${ordinal}${within(group, state.size)})`;
      }
    }
  }
  return 'is not in an operation';
}

const whereIs = (state: State, rank: number): string => (state.ended.has(rank) ? 'has ended' : waitsIn(state, rank));

/** `rank 2 waits in barrier (its operation 5), but rank 0 has ended`. */
function blame(state: State, group: Group, meeting: Meeting): string {
  const here = group.ranks.filter((_, member) => meeting.arrivals[member]);
  const missing = group.ranks.filter((_, member) => !meeting.arrivals[member]);
  const { operation } = meeting.arrivals.find((arrival) => arrival !== undefined) as Arrival;
  const who = here.length === 1 ? `rank ${here.join()} waits` : `ranks ${here.join(', ')} wait`;
  const others = missing.map((rank) => {
    const calls = group.counts[group.ranks.indexOf(rank)] ?? 0;
    return `rank ${rank} ${whereIs(state, rank)} after ${calls} operations${within(group, state.size)}`;
  });
  const what = `${describe(operation)} (operation ${meeting.ordinal}${within(group, state.size)})`;
  return `${who} in ${what}, but ${others.join(', ')}`;
}

function mismatch(state: State, group: Group, meeting: Meeting, member: number): string | undefined {
  const own = meeting.arrivals[member] as Arrival;
  const other = meeting.arrivals.findIndex((arrival) => arrival && !agrees(arrival.operation, own.operation));
  if (other < 0) return undefined;
  const operation = (meeting.arrivals[other] as Arrival).operation;
  return `at operation ${meeting.ordinal}${within(group, state.size)} rank ${group.ranks[other]} calls ${describe(operation)} but rank ${group.ranks[member]} calls ${describe(own.operation)}`;
}

function fail(state: State, error: FrugalError): void {
  if (state.failure) return;
  state.failure = error;
  for (const { meetings } of state.groups) {
    for (const { arrivals, timer } of meetings.values()) {
      clearTimeout(timer);
      for (const arrival of arrivals) arrival?.reject(error);
    }
    meetings.clear();
  }
  state.tellFailure(error);
}

function refuse(state: State, why: string): void {
  const text = `localCluster: ${why}. All ranks must call the same operations in the same order.`;
  fail(state, new FrugalError('COMMUNICATION', text));
}

function openGroup(state: State, ranks: readonly number[]): Group {
  const group = { ranks, counts: ranks.map(() => 0), meetings: new Map<number, Meeting>() };
  state.groups.push(group);
  return group;
}

/** An operation that an ended rank has not called will never complete. */
function checkEnded(state: State, group: Group, meeting: Meeting): void {
  const lost = group.ranks.some((rank, member) => state.ended.has(rank) && !meeting.arrivals[member]);
  if (lost) refuse(state, blame(state, group, meeting));
}

function meetingOf(state: State, group: Group, ordinal: number): Meeting {
  const known = group.meetings.get(ordinal);
  if (known) return known;
  const seconds = state.timeoutSeconds;
  const late = (): void => refuse(state, `after ${seconds} s ${blame(state, group, meeting)}`);
  // Does not keep the process alive: a process with nothing left to do ends through `stall`.
  const timer = seconds > 0 ? setTimeout(late, seconds * 1000).unref() : undefined;
  const meeting: Meeting = { ordinal, arrivals: group.ranks.map(() => undefined), timer };
  group.meetings.set(ordinal, meeting);
  return meeting;
}

function join(state: State, group: Group, member: number, arrival: Arrival): void {
  if (state.failure) return arrival.reject(state.failure);
  const ordinal = (group.counts[member] ?? 0) + 1;
  group.counts[member] = ordinal;
  const meeting = meetingOf(state, group, ordinal);
  meeting.arrivals[member] = arrival;
  const wrong = mismatch(state, group, meeting, member);
  if (wrong !== undefined) return refuse(state, wrong);
  if (meeting.arrivals.includes(undefined)) return checkEnded(state, group, meeting);
  const open = (members: readonly number[]): Group =>
    openGroup(
      state,
      members.map((index) => group.ranks[index] as number),
    );
  const refusal = complete(meeting.arrivals as Arrival[], open, () => (state.sum ??= fastestSum()));
  if (refusal !== undefined) return refuse(state, `at operation ${ordinal}${within(group, state.size)} ${refusal}`);
  clearTimeout(meeting.timer);
  group.meetings.delete(ordinal);
}

/** @param timeoutSeconds - an operation that is not complete after this long fails the cluster; 0: never */
export function openCluster(size: number, timeoutSeconds: number): Cluster {
  let tellFailure: (error: FrugalError) => void = () => undefined;
  const failed = new Promise<FrugalError>((resolve) => (tellFailure = resolve));
  const state: State = {
    size,
    timeoutSeconds,
    groups: [],
    ended: new Set(),
    tellFailure,
    sum: undefined,
    failure: undefined,
  };
  return {
    size,
    failed,
    open: (ranks) => openGroup(state, ranks),
    join: (group, member, arrival) => join(state, group, member, arrival),
    end: (rank) => {
      state.ended.add(rank);
      for (const group of state.groups) {
        for (const meeting of group.meetings.values()) checkEnded(state, group, meeting);
      }
    },
    fail: (error) => fail(state, error),
    stall: (why) => {
      const states = Array.from({ length: size }, (_, rank) => `rank ${rank} ${whereIs(state, rank)}`);
      refuse(state, `${why}: ${states.join(', ')}`);
    },
  };
}
