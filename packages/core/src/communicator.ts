/** What travels between ranks. */
export type Numbers = Float32Array | Float64Array | Int32Array;

/** How the values of the ranks become one value. */
export type Reduction = 'sum' | 'max' | 'min';

/** Who takes part in a neighbour exchange, as seen by one rank. The lists of all ranks must fit together. */
export interface Peers {
  /** The ranks that receive this rank's values; itself may be among them. */
  readonly to: readonly number[];
  /** The ranks whose values this rank receives, in the order of the result. */
  readonly from: readonly number[];
}

/**
 * Talks to the other ranks of a run. All ranks must call the same operations in the same order (a collective); values of
 * one operation have the same type and, except where said, the same length on all ranks. An array belongs to the operation
 * until its promise settles. Implementations live in `@frugal/cluster`.
 */
export interface Communicator {
  /** This rank, from 0. */
  readonly rank: number;
  /** Number of ranks. */
  readonly size: number;
  /** Replaces the contents of `values` by their sum (or maximum, minimum) over all ranks; the same bits on every rank. */
  allReduce(values: Numbers, reduction?: Reduction): Promise<void>;
  /** The values of all ranks one after the other, in the order of ranks. Lengths may differ. */
  allGather<T extends Numbers>(values: T): Promise<T>;
  /** Replaces the contents of `values` by those of the root (rank 0 unless told). */
  broadcast(values: Numbers, root?: number): Promise<void>;
  /** Sends `values` to some ranks and returns what others sent, in the order of `peers.from`. */
  exchange<T extends Numbers>(values: T, peers: Peers): Promise<T[]>;
  /** Waits for all ranks. */
  barrier(): Promise<void>;
  /** A communicator of the ranks that pass the same color, in the order of their ranks here. */
  split(color: number): Promise<Communicator>;
}

/** The ranks of a run that has no others: every operation returns the own values. */
export const oneRank: Communicator = {
  rank: 0,
  size: 1,
  allReduce: async () => undefined,
  allGather: async (values) => values.slice() as typeof values,
  broadcast: async () => undefined,
  exchange: async (values, { from }) => from.map(() => values.slice() as typeof values),
  barrier: async () => undefined,
  split: async () => oneRank,
};
