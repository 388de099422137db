import assert from 'node:assert/strict';
import { type Communicator, FrugalError, type Numbers, type Peers, type Reduction, stream } from '@frugal/core';

/** Something that every communicator must do, of every size. All ranks run it; one that throws has failed. */
export interface Check {
  readonly name: string;
  readonly body: (communicator: Communicator) => Promise<void>;
}

const LENGTHS = [0, 1, 15, 16, 17, 33, 100_003];
const TYPES = [Float32Array, Float64Array, Int32Array] as const;
const REDUCTIONS: readonly Reduction[] = ['sum', 'max', 'min'];

const known = new Map<string, unknown>();

/** Ranks of one process, and all reductions, share what they compare with. */
function once<T>(key: string, make: () => T): T {
  if (!known.has(key)) known.set(key, make());
  return known.get(key) as T;
}

/** The values of one rank: every rank can make those of every other. Not to be changed. */
function partOf(type: (typeof TYPES)[number], length: number, rank: number, seed: number): Numbers {
  return once(`${type.name} ${length} ${rank} ${seed}`, () => {
    const { next } = stream(seed, 'conformance', length, rank);
    return new type(length).map(() => 2000 * next() - 1000);
  });
}

/** A copy of them. */
const valuesOf = (...what: Parameters<typeof partOf>): Numbers => partOf(...what).slice();

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** The oracle: plain loops over plain numbers. */
function serial(parts: readonly Numbers[], reduction: Reduction): Float64Array {
  const result = Float64Array.from(parts[0]!);
  for (const part of parts.slice(1)) {
    for (let i = 0; i < result.length; i++) {
      const a = result[i]!;
      const b = part[i]!;
      result[i] = reduction === 'sum' ? a + b : reduction === 'max' ? (a > b ? a : b) : a < b ? a : b;
    }
  }
  return result;
}

/** Within the rounding of a sum of values below 1000, whatever its order: each addition rounds once. */
function assertClose(received: Numbers, expected: Float64Array, ranks: number, exact: boolean): void {
  const unit = received instanceof Float32Array ? 2 ** -24 : 2 ** -53;
  const bound = exact || received instanceof Int32Array ? 0 : ranks * unit * ranks * 1000;
  assert.equal(received.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    if (Math.abs(received[i]! - expected[i]!) <= bound) continue;
    assert.fail(`element ${i}: ${received[i]} for ${expected[i]}, bound ${bound}`);
  }
}

/** Equal type, length and bits. */
function assertSame(received: Numbers, expected: Numbers): void {
  assert.equal(received.constructor, expected.constructor);
  const bytes = (values: Numbers): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  if (Buffer.compare(bytes(received), bytes(expected)) !== 0) assert.deepEqual(received, expected);
}

async function allReduceCase(
  communicator: Communicator,
  type: (typeof TYPES)[number],
  length: number,
  reduction: Reduction,
): Promise<void> {
  const { rank, size } = communicator;
  const own = valuesOf(type, length, rank, 1);
  await communicator.allReduce(own, reduction);
  const expected = once(`serial ${type.name} ${length} ${size} ${reduction}`, () =>
    serial(
      range(size).map((r) => partOf(type, length, r, 1)),
      reduction,
    ),
  );
  assertClose(own, expected, size, reduction !== 'sum');
  // The same bits everywhere: a rank that drifts apart would never come back.
  const bits = new Int32Array(own.buffer, own.byteOffset, own.byteLength / 4);
  const high = bits.slice();
  const low = bits.slice();
  await Promise.all([communicator.allReduce(high, 'max'), communicator.allReduce(low, 'min')]);
  assertSame(high, bits);
  assertSame(low, bits);
}

/** Ring, star and random graphs, as lists of peers by rank. */
function graphs(size: number): Peers[][] {
  const fromEdges = (has: (a: number, b: number) => boolean): Peers[] =>
    range(size).map((rank) => ({
      to: range(size).filter((other) => has(rank, other)),
      // Backwards: the result comes in the order of this list, not in the order of ranks.
      from: range(size)
        .filter((other) => has(other, rank))
        .reverse(),
    }));
  const random = range(4).map((seed) => {
    const { next } = stream(seed, 'graph', size);
    const edges = new Set(range(size * size).filter(() => next() < 0.5));
    return fromEdges((a, b) => edges.has(a * size + b));
  });
  const ring = fromEdges((a, b) => b === (a + 1) % size || a === (b + 1) % size);
  const star = fromEdges((a, b) => (a === 0) !== (b === 0));
  return [ring, star, fromEdges((a, b) => a !== b), fromEdges(() => false), ...random];
}

async function exchangeCase(communicator: Communicator, peers: Peers, length: number): Promise<void> {
  for (const type of TYPES) {
    const own = valuesOf(type, length, communicator.rank, 2);
    const received = await communicator.exchange(own, peers);
    assert.equal(received.length, peers.from.length);
    received.forEach((values, i) => assertSame(values, partOf(type, length, peers.from[i]!, 2)));
    assertSame(own, partOf(type, length, communicator.rank, 2));
  }
}

async function inFlight(communicator: Communicator): Promise<void> {
  const { rank, size } = communicator;
  const arrays = LENGTHS.map((length, seed) => valuesOf(Float64Array, length, rank, seed));
  const small = Int32Array.of(rank);
  const rooted = Float32Array.of(rank, rank);
  const pending = arrays.map((values) => communicator.allReduce(values));
  const gathered = communicator.allGather(new Int32Array(rank + 1).fill(rank));
  const last = communicator.broadcast(rooted, size - 1);
  const ring = communicator.exchange(small, { to: [(rank + 1) % size], from: [(rank + size - 1) % size] });
  const late = communicator.allReduce(small.slice(), 'max');
  const group = communicator.split(rank % 2);
  const gatheredAgain = communicator.allGather(Float32Array.of(rank));
  // Awaited last first: the order of awaiting must not matter.
  assert.deepEqual(await gatheredAgain, Float32Array.from(range(size)));
  assert.equal((await group).rank, Math.floor(rank / 2));
  await late;
  assert.deepEqual(await ring, [Int32Array.of((rank + size - 1) % size)]);
  await last;
  assert.deepEqual(rooted, Float32Array.of(size - 1, size - 1));
  assert.deepEqual(await gathered, Int32Array.from(range(size).flatMap((r) => range(r + 1).map(() => r))));
  await Promise.all(pending);
  LENGTHS.forEach((length, seed) => {
    const parts = range(size).map((r) => partOf(Float64Array, length, r, seed));
    assertClose(arrays[seed]!, serial(parts, 'sum'), size, false);
  });
}

async function splits(communicator: Communicator): Promise<void> {
  const { rank, size } = communicator;
  const group = await communicator.split(rank % 2);
  const members = range(size).filter((r) => r % 2 === rank % 2);
  assert.equal(group.size, members.length);
  assert.equal(group.rank, members.indexOf(rank));
  assert.deepEqual(await group.allGather(Int32Array.of(rank)), Int32Array.from(members));
  const values = Float32Array.of(rank);
  // Both at once: operations of a group and of the whole do not meet.
  const whole = Float32Array.of(1);
  await Promise.all([group.allReduce(values), communicator.allReduce(whole)]);
  assert.equal(
    values[0],
    members.reduce((a, b) => a + b, 0),
  );
  assert.equal(whole[0], size);
  const own = await group.split(group.rank);
  assert.deepEqual([own.rank, own.size], [0, 1]);
  const again = await group.allGather(Float64Array.of(group.rank));
  assert.deepEqual(again, Float64Array.from(range(members.length)));
}

async function refusals(communicator: Communicator): Promise<void> {
  const values = new Float32Array(2);
  const refused = async (promise: Promise<unknown>): Promise<void> =>
    assert.rejects(promise, (error) => FrugalError.is(error, 'CONFIG'));
  await refused(communicator.broadcast(values, communicator.size));
  await refused(communicator.broadcast(values, -1));
  await refused(communicator.allReduce(values, 'mean' as 'sum'));
  await refused(communicator.allReduce([1, 2] as unknown as Float32Array));
  await refused(communicator.exchange(values, { to: [communicator.size], from: [] }));
  await refused(communicator.exchange(values, { to: [], from: [0, 0] }));
  await refused(communicator.split(-1));
  // A refused call is no call: the ranks are still in step.
  await communicator.barrier();
}

/** Ranks that come at different times still meet. */
async function unevenPace(communicator: Communicator): Promise<void> {
  for (let turn = 0; turn < communicator.size; turn++) {
    if (turn === communicator.rank) await new Promise((resolve) => setTimeout(resolve, 15));
    const values = Int32Array.of(turn);
    await communicator.allReduce(values);
    assert.equal(values[0], turn * communicator.size);
  }
}

/**
 * A rank that comes early to a split goes on with other work. Here the last rank comes only after the others have done an
 * operation of another group: if a split blocked them, all would wait for ever, and the job would be ended from outside.
 */
async function splitWaits({ rank, size, split }: Communicator): Promise<void> {
  const other = await split(0);
  const late = rank === size - 1;
  if (late) await other.barrier();
  const pending = split(0);
  if (!late) await other.barrier();
  assert.equal((await pending).size, size);
}

/** What both implementations must do. */
export const checks: readonly Check[] = [
  ...TYPES.map((type) => ({
    name: `allReduce of ${type.name}: sum, max and min of lengths ${LENGTHS.join(', ')} against plain loops, same bits on all ranks`,
    body: async (communicator: Communicator) => {
      for (const length of LENGTHS) {
        for (const reduction of REDUCTIONS) await allReduceCase(communicator, type, length, reduction);
      }
    },
  })),
  {
    name: 'allReduce of int32 wraps',
    body: async (communicator) => {
      const values = Int32Array.of(2 ** 31 - 1);
      await communicator.allReduce(values);
      assert.equal(
        values[0],
        range(communicator.size).reduce((sum) => (sum + 2 ** 31 - 1) | 0, 0),
      );
    },
  },
  {
    name: 'allReduce of a view leaves its neighbours alone',
    body: async (communicator) => {
      for (const length of [3, 500]) {
        const whole = new Float32Array(1000).fill(1);
        await communicator.allReduce(whole.subarray(7, 7 + length));
        const expected = new Float32Array(1000).fill(1).fill(communicator.size, 7, 7 + length);
        assert.deepEqual(whole, expected);
      }
    },
  },
  {
    name: 'allGather of different lengths, empty ones among them',
    body: async (communicator) => {
      const { rank, size } = communicator;
      for (const type of TYPES) {
        for (const scale of [0, 1, 3, 5000]) {
          const own = valuesOf(type, rank * scale, rank, 3);
          const parts = range(size).map((r) => partOf(type, r * scale, r, 3));
          const gathered = await communicator.allGather(own);
          assertSame(gathered, type.from(parts.flatMap((part) => [...part])));
        }
      }
    },
  },
  {
    name: 'broadcast from every root',
    body: async (communicator) => {
      for (const type of TYPES) {
        for (const length of LENGTHS) {
          for (const root of range(communicator.size)) {
            const values = valuesOf(type, length, communicator.rank, 4);
            await communicator.broadcast(values, root);
            assertSame(values, partOf(type, length, root, 4));
          }
        }
      }
      const values = Float32Array.of(communicator.rank + 7);
      await communicator.broadcast(values);
      assert.equal(values[0], 7);
    },
  },
  {
    name: 'exchange on rings, stars, complete, empty and random graphs, in the order asked for',
    body: async (communicator) => {
      for (const graph of graphs(communicator.size)) {
        for (const length of [0, 1, 17, 33, 20_011])
          await exchangeCase(communicator, graph[communicator.rank]!, length);
      }
    },
  },
  {
    name: 'exchange of arrays of several MiB, which may travel in pieces',
    body: async (communicator) => {
      const { rank, size } = communicator;
      const peers = { to: [(rank + 1) % size], from: [(rank + size - 1) % size] };
      await exchangeCase(communicator, peers, 600_011);
    },
  },
  { name: 'split by parity, and a split of that', body: splits },
  { name: 'a split does not block a rank that comes early', body: splitWaits },
  { name: 'several operations in flight', body: inFlight },
  { name: 'bad arguments are refused and leave the ranks in step', body: refusals },
  { name: 'ranks of uneven pace', body: unevenPace },
];

/** What `localCluster` and `mpi({ order: 'rank' })` promise beyond that. */
export const orderCheck: Check = {
  name: 'sums are added in the order of ranks, in float64, and rounded once',
  body: async ({ rank, size, allReduce }) => {
    for (const length of [5, 4096 + 17]) {
      const parts = range(size).map((r) => partOf(Float32Array, length, r, 5));
      const values = parts[rank]!.slice();
      await allReduce(values);
      assertSame(values, Float32Array.from(serial(parts, 'sum')));
    }
  },
};
