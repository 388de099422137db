import { type Communicator, FrugalError, type Numbers, type Peers, type Reduction } from '@frugal/core';
import { reduceInOrder } from '../numbers.js';
import { type Operation, operations } from '../operation.js';
import { begin, type Context, type Group, openGroup } from './group.js';
import type { Request } from './mpi-lib.js';
import type { Steps } from './progress.js';
import { agree } from './verify.js';

/** Starts of equal or given parts that lie one after the other, in memory that V8 does not move. */
function offsetsOf(counts: Int32Array, size: number): { offsets: Int32Array; total: number } {
  const offsets = new Int32Array(Math.max(32, size));
  let total = 0;
  for (let rank = 0; rank < size; rank++) {
    offsets[rank] = total;
    total += counts[rank] ?? 0;
  }
  if (total < 2 ** 31) return { offsets, total };
  throw new FrugalError(
    'COMMUNICATION',
    `mpi: expected less than 2^31 gathered values but received ${total}. Gather in parts.`,
  );
}

/** Gathers parts whose lengths all ranks know; returns memory that may be longer than the values. */
export function* gather<T extends Numbers>(
  { lib, memory }: Context,
  { comm, size }: Group,
  values: T,
  counts: Int32Array,
  issued: boolean,
): Generator<{ request: Request; issued: boolean }, { gathered: T; total: number; offsets: Int32Array }, undefined> {
  const { offsets, total } = offsetsOf(counts, size);
  const send = memory.fixed(values);
  const gathered = memory.room(values, total);
  const request = memory.request();
  lib.allGather(send, values.length, gathered, counts, offsets, comm, request);
  yield { request, issued };
  memory.release(request, send);
  return { gathered, total, offsets };
}

const equalCounts = (size: number, count: number): Int32Array =>
  new Int32Array(Math.max(32, size)).fill(count, 0, size);

function* allReduce(context: Context, group: Group, values: Numbers, reduction: Reduction): Steps {
  const { lib, memory } = context;
  const { sumInRankOrder } = context;
  if (sumInRankOrder && reduction === 'sum') {
    const length = values.length;
    const { gathered, offsets } = yield* gather(context, group, values, equalCounts(group.size, length), true);
    const parts = Array.from({ length: group.size }, (_, rank) => {
      const start = offsets[rank] ?? 0;
      return gathered.subarray(start, start + length);
    });
    reduceInOrder(parts, reduction, values, sumInRankOrder);
    memory.release(gathered);
    return undefined;
  }
  const own = memory.fixed(values);
  const request = memory.request();
  lib.allReduce(own, values.length, reduction, group.comm, request);
  yield { request, issued: true };
  if (own !== values) values.set(own.subarray(0, values.length));
  memory.release(request, own);
  return undefined;
}

/** Lengths first, then the values. */
function* allGather(context: Context, group: Group, values: Numbers): Steps {
  const { memory } = context;
  const { size } = group;
  const lengths = yield* gather(context, group, Int32Array.of(values.length), equalCounts(size, 1), false);
  const counts = equalCounts(size, 0);
  counts.set(lengths.gathered.subarray(0, size));
  memory.release(lengths.gathered);
  const { gathered, total } = yield* gather(context, group, values, counts, true);
  if (gathered.length === total) return gathered;
  const result = gathered.slice(0, total);
  memory.release(gathered);
  return result;
}

function* broadcast({ lib, memory }: Context, { comm }: Group, values: Numbers, root: number): Steps {
  const own = memory.fixed(values);
  const request = memory.request();
  lib.broadcast(own, values.length, root, comm, request);
  yield { request, issued: true };
  if (own !== values) values.set(own.subarray(0, values.length));
  memory.release(request, own);
  return undefined;
}

/** Open MPI over TCP sends and receives one message of many MiB in turn, but pieces of this many bytes at once. */
const PIECE_BYTES = 2 ** 20;

/** Parts of an array of a message each: 2^k of them, equal but for one value. */
function piecesOf<T extends Numbers>(values: T, length: number): { pieces: T[]; k: number } {
  const k = Math.max(0, Math.ceil(Math.log2((length * values.BYTES_PER_ELEMENT) / PIECE_BYTES)));
  const edge = (i: number): number => Math.floor((i * length) / 2 ** k);
  const pieces = Array.from({ length: 2 ** k }, (_, i) => values.subarray(edge(i), edge(i + 1)) as T);
  return { pieces, k };
}

interface Message {
  readonly piece: Numbers;
  readonly request: Request;
}

/** Waits for the pieces of one sender. */
function* received({ lib, memory }: Context, messages: readonly Message[], from: number, length: number): Steps {
  let count = 0;
  for (const { piece, request } of messages) {
    yield { request, issued: true };
    count += lib.received(piece);
    memory.release(request);
  }
  if (count === length) return;
  throw new FrugalError(
    'COMMUNICATION',
    `exchange: expected ${length} values from rank ${from} but received ${count}. All ranks must pass the same length.`,
  );
}

function* exchange(context: Context, { comm }: Group, values: Numbers, peers: Peers, ordinal: number): Steps {
  const { lib, memory } = context;
  const { length } = values;
  const own = memory.fixed(values);
  const { pieces, k } = piecesOf(own, length);
  // Messages of one sender arrive in order; the tag only keeps ranks that are out of step, or that cut otherwise, apart.
  const tag = (ordinal % 2 ** 10) * 2 ** 5 + k;
  const receives = peers.from.map((from) => {
    const room = memory.room(values, length);
    return { from, room, cut: piecesOf(room, length).pieces, messages: [] as Message[] };
  });
  const sends: Request[] = [];
  // In turn, so that no rank fills its connections with what it sends before it can say what it is ready to receive.
  for (const [i, piece] of pieces.entries()) {
    for (const { from, cut, messages } of receives) {
      const [part, request] = [cut[i] as Numbers, memory.request()];
      lib.receive(part, part.length, from, tag, comm, request);
      messages.push({ piece: part, request });
    }
    for (const to of peers.to) {
      const request = memory.request();
      lib.send(piece, piece.length, to, tag, comm, request);
      sends.push(request);
    }
  }
  const result: Numbers[] = [];
  for (const { from, room, messages } of receives) {
    yield* received(context, messages, from, length);
    result.push(room.length === length ? room : room.slice(0, length));
    if (room.length !== length) memory.release(room);
  }
  for (const request of sends) yield { request, issued: true };
  memory.release(own, ...sends);
  return result;
}

function* barrier({ lib, memory }: Context, { comm }: Group, issued: boolean): Steps {
  const request = memory.request();
  lib.barrier(comm, request);
  yield { request, issued };
  memory.release(request);
  return undefined;
}

/** MPI_Comm_split blocks this thread: it is called when all ranks are known to be about to. */
function* split(context: Context, group: Group, color: number, ordinal: number): Steps {
  yield* barrier(context, group, false);
  const comm = context.lib.split(group.comm, color, group.rank);
  return communicatorOf(context, openGroup(context, comm, `${group.path}/${ordinal}:${color}`));
}

/** The communicator of a group. */
export function communicatorOf(context: Context, group: Group): Communicator {
  const { rank, size } = group;
  const call = (operation: Operation, steps: (ordinal: number) => Steps): Promise<unknown> =>
    begin(context, group, operation, (ordinal) =>
      context.verify ? agree(context, group, operation, ordinal, steps(ordinal)) : steps(ordinal),
    );
  return {
    rank,
    size,
    allReduce: async (values, reduction = 'sum') => {
      const operation = operations.allReduce(values, reduction);
      await call(operation, () => allReduce(context, group, values, reduction));
    },
    allGather: async <T extends Numbers>(values: T) =>
      (await call(operations.allGather(values), () => allGather(context, group, values))) as T,
    broadcast: async (values, root = 0) => {
      await call(operations.broadcast(values, root, size), () => broadcast(context, group, values, root));
    },
    exchange: async <T extends Numbers>(values: T, peers: Peers) => {
      const operation = operations.exchange(values, peers, size);
      return (await call(operation, (ordinal) => exchange(context, group, values, peers, ordinal))) as T[];
    },
    barrier: async () => {
      await call(operations.barrier(), () => barrier(context, group, true));
    },
    split: async (color) => {
      const operation = operations.split(color);
      return (await call(operation, (ordinal) => split(context, group, color, ordinal))) as Communicator;
    },
  };
}
