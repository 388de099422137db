import type { Communicator } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { FactorKey, Solved } from './decompositions.js';
import { assign, type Assignment, type Distribution } from './distribution.js';
import type { FactorPair } from './factors.js';
import type { Form } from './form.js';
import type { Layer } from './layers.js';
import { packTriangle, triangleLength, unpackTriangle } from './triangles.js';

/** Bytes that this rank has handed over, by purpose. */
export interface SentBytes {
  /** Triangles of factors. */
  readonly factors: number;
  /** Decompositions. */
  readonly decompositions: number;
  /** Preconditioned gradients. */
  readonly gradients: number;
}

/** The part of one rank in the work of all. */
export interface Team {
  /** Factors that this rank decomposes. */
  readonly keys: readonly FactorKey[];
  /** Layers that this rank preconditions. */
  readonly layers: readonly number[];
  /** Do preconditioned gradients travel? Otherwise each rank has those of all layers. */
  readonly sends: boolean;
  /** share · the triangles of the factors of this rank. */
  pack(batch: readonly FactorPair[], share: number): Float32Array;
  /** Replaces packed triangles by their sums over ranks. */
  sum(packed: Float32Array): Promise<void>;
  /** Packed triangles as tensors. */
  open(sums: Float32Array): FactorPair[];
  /** Decompositions of all factors of `layers`, from those that each rank of the column made. */
  gather(own: readonly Solved[]): Promise<readonly Solved[]>;
  /** Preconditioned gradients of all layers, from those of `layers`; as vectors, in the order of layers. */
  collect(own: readonly Float32Array[]): Promise<Float32Array[]>;
  /** What was sent. */
  sent(): SentBytes;
}

const SIDES = ['a', 'g'] as const;

const keysOf = ({ layers }: Assignment, chosen: (worker: number) => boolean): FactorKey[] =>
  layers.flatMap((placement, layer) =>
    SIDES.filter((side) => chosen(placement[side])).map((side) => ({ layer, side })),
  );

function concat(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let end = 0;
  for (const part of parts) {
    all.set(part, end);
    end += part.length;
  }
  return all;
}

/** Cuts a vector into parts of these lengths. */
function split(values: Float32Array, lengths: readonly number[]): Float32Array[] {
  let end = 0;
  return lengths.map((length) => values.subarray(end, (end += length)));
}

/** Packs and unpacks the factors of all layers as triangles. */
function packing(layers: readonly Layer[]) {
  const length = layers.reduce((sum, { a, g }) => sum + triangleLength(a) + triangleLength(g), 0);
  return {
    pack(batch: readonly FactorPair[], share: number): Float32Array {
      const packed = new Float32Array(length);
      let end = 0;
      for (const [i, pair] of batch.entries()) {
        for (const side of SIDES)
          end = packTriangle(packed, end, pair[side].dataSync(), (layers[i] as Layer)[side], share);
      }
      return packed;
    },
    open(sums: Float32Array): FactorPair[] {
      let end = 0;
      const next = (n: number): tf.Tensor => {
        const tensor = tf.tensor2d(unpackTriangle(sums, end, n), [n, n]);
        end += triangleLength(n);
        return tensor;
      };
      return layers.map(({ a, g }) => ({ a: next(a), g: next(g) }));
    },
  };
}

const layersIn = ({ layers }: Assignment, column: number): number[] =>
  layers.flatMap((placement, i) => (placement.column === column ? [i] : []));

/** What the ranks of a column decomposed, in the order of ranks, put together. */
function gathering(column: Communicator, members: readonly FactorKey[][], lengthOf: (key: FactorKey) => number) {
  return async (own: readonly Solved[]): Promise<readonly Solved[]> => {
    const all = await column.allGather(concat(own.map(({ values }) => values)));
    const keys = members.flat();
    return split(all, keys.map(lengthOf)).map((part, i) => ({ key: keys[i] as FactorKey, values: part }));
  };
}

/** What the ranks of a row preconditioned, the layers of each column in turn, put into the order of layers. */
function collecting(row: Communicator, order: readonly number[], layers: readonly Layer[]) {
  const lengths = order.map((i) => (layers[i] as Layer).a * (layers[i] as Layer).g);
  return async (own: readonly Float32Array[]): Promise<Float32Array[]> => {
    const parts = split(await row.allGather(concat(own)), lengths);
    const result: Float32Array[] = [];
    for (const [k, i] of order.entries()) result[i] = parts[k] as Float32Array;
    return result;
  };
}

const bytesOf = (arrays: readonly Float32Array[]): number =>
  arrays.reduce((sum, { byteLength }) => sum + byteLength, 0);

/**
 * Opens the team of a communicator: every rank must call it, with the same layers. Ranks of a column share decompositions,
 * those of a row preconditioned gradients.
 */
export async function openTeam(
  communicator: Communicator,
  layers: readonly Layer[],
  form: Form,
  distribution: Required<Distribution>,
): Promise<Team> {
  const { rank, size } = communicator;
  const assignment = assign(layers, size, distribution);
  const { columns } = assignment;
  const column = rank % columns;
  const ofColumn = await communicator.split(column);
  const ofRow = await communicator.split(Math.floor(rank / columns));
  const keysAt = (member: number): FactorKey[] => keysOf(assignment, (worker) => worker === member);
  const members = Array.from({ length: ofColumn.size }, (_, i) => keysAt(i * columns + column));
  const gather = gathering(ofColumn, members, ({ layer, side }) => form.length((layers[layer] as Layer)[side]));
  const order = Array.from({ length: columns }, (_, i) => layersIn(assignment, i)).flat();
  const collect = collecting(ofRow, order, layers);
  const bytes = { factors: 0, decompositions: 0, gradients: 0 };
  return {
    keys: keysAt(rank),
    layers: layersIn(assignment, column),
    sends: ofRow.size > 1,
    ...packing(layers),
    async sum(packed) {
      bytes.factors += packed.byteLength;
      await communicator.allReduce(packed);
    },
    async gather(own) {
      if (ofColumn.size === 1) return own;
      bytes.decompositions += bytesOf(own.map(({ values }) => values));
      return gather(own);
    },
    async collect(own) {
      bytes.gradients += bytesOf(own);
      return collect(own);
    },
    sent: () => ({ ...bytes }),
  };
}
