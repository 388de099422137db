import { FrugalError, type WeightedSum } from '@frugal/core';
import { describe, type Operation } from '../operation.js';
import type { Memory } from './memory.js';
import type { Handle, MpiLib } from './mpi-lib.js';
import type { Phase, Progress, Running, Steps } from './progress.js';

/** What all communicators of a process share. */
export interface Context {
  readonly lib: MpiLib;
  readonly memory: Memory;
  readonly progress: Progress;
  /** Adds floats where sums are made in the order of ranks, at the cost of memory and time; absent where MPI adds. */
  readonly sumInRankOrder: WeightedSum | undefined;
  /** Do ranks compare what they call before they do it? */
  readonly verify: boolean;
  /** All that were opened; the first is the whole. */
  readonly groups: Group[];
  closed: boolean;
}

/** The ranks of one communicator, as seen by this process. */
export interface Group {
  readonly comm: Handle;
  readonly rank: number;
  readonly size: number;
  /** How it came to be: equal on all of its ranks, different from that of any other communicator of a rank. */
  readonly path: string;
  /** Hash of the path. */
  readonly key: number;
  /** Operations called so far. */
  count: number;
  /** Does an operation still have collectives to issue? */
  issuing: boolean;
  /** Those that wait to be issued. */
  readonly queue: (() => void)[];
}

/** FNV-1a, 31 bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const character of text) value = Math.imul(value ^ (character.codePointAt(0) ?? 0), 0x01000193);
  return value >>> 1;
}

/** Adds a communicator to those of the process. */
export function openGroup(context: Context, comm: Handle, path: string): Group {
  const { lib, groups } = context;
  const group: Group = {
    comm,
    rank: lib.rank(comm),
    size: lib.size(comm),
    path,
    key: hash(path),
    count: 0,
    issuing: false,
    queue: [],
  };
  groups.push(group);
  return group;
}

/** The next operation of the group may issue its collectives. */
function issueNext(group: Group): void {
  group.issuing = false;
  group.queue.shift()?.();
}

/** Runs the steps of one operation; `resolve` and `reject` end it. */
function operationOf(
  context: Context,
  group: Group,
  steps: Steps,
  resolve: (result: unknown) => void,
  reject: (error: unknown) => void,
): { start: () => void; step: () => boolean } {
  let phase: Phase | undefined;
  let over = false;
  let issued = false;
  const release = (): void => {
    if (issued) return;
    issued = true;
    issueNext(group);
  };
  const attempt = (action: () => void): void => {
    try {
      action();
    } catch (error) {
      over = true;
      reject(error);
    }
    if (over || phase?.issued) release();
  };
  const advance = (): void => {
    const next = steps.next();
    if (!next.done) phase = next.value;
    else {
      over = true;
      resolve(next.value);
    }
  };
  const poll = (): void => {
    while (!over && phase && context.lib.test(phase.request)) advance();
  };
  const step = (): boolean => {
    if (!over && phase) attempt(poll);
    return over;
  };
  const start = (): void => {
    group.issuing = true;
    attempt(advance);
  };
  return { start, step };
}

/**
 * Starts an operation, at once if all earlier ones of the group have issued their collectives: those of a communicator
 * must be issued in the same order on all ranks, but several may be under way.
 *
 * @param steps - makes the steps, given the ordinal of the operation
 */
export function begin(
  context: Context,
  group: Group,
  operation: Operation,
  steps: (ordinal: number) => Steps,
): Promise<unknown> {
  if (context.closed) {
    throw new FrugalError(
      'COMMUNICATION',
      `mpi: expected an open communicator but ${operation.kind} was called after close(), or after the program had ended.`,
    );
  }
  const ordinal = ++group.count;
  return new Promise((resolve, reject) => {
    const { start, step } = operationOf(context, group, steps(ordinal), resolve, reject);
    if (group.issuing) group.queue.push(start);
    else start();
    const ofGroup = group.path === '' ? '' : ` of a group of ${group.size}`;
    const label = `${describe(operation)} (operation ${ordinal}${ofGroup})`;
    context.progress.add({ label, group: group.key, ordinal, since: performance.now(), step } satisfies Running);
  });
}
