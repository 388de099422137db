import {
  checkChoice,
  checkInteger,
  checkOptions,
  type ExchangeLink,
  fastestSum,
  type RunContext,
  unprepared,
  type Updates,
} from '@frugal/core';
import type * as tf from '@tensorflow/tfjs';
import { type Bucket, openBuckets } from './buckets.js';
import { type WireFormat, wires } from './wire.js';

/** Options of {@link allReduce}. */
export interface AllReduceOptions {
  /** Most bytes of one reduction, as float32; a larger weight has one of its own. Default 25 MiB, as in PyTorch's DDP. */
  readonly bucketBytes?: number;
  /**
   * How gradients travel: `'bfloat16'` halves the bytes and rounds, which takes about 20 ns per weight: for networks of
   * 1 Gbit/s and less, not for ranks of one machine. Default `'float32'`.
   */
  readonly wire?: WireFormat;
}

/**
 * What one rank gave to be summed in a run, in bytes of values. The transport sends 2(n − 1)/n times as much from each of n ranks if it
 * is a ring (n − 1 times with `mpi({ order: 'rank' })` and float32, which gathers instead).
 */
export interface ExchangeReport {
  /** Steps that were exchanged; none on one rank. */
  readonly steps: number;
  /** Bytes of all steps. */
  readonly bytes: number;
  /** Bytes of one step, on average. */
  readonly bytesPerStep: number;
  /** What whole float32 gradients of these steps would have been. */
  readonly fullBytes: number;
}

/** What the links of this kind are told, checked. */
export interface ReducerSettings {
  /** Names the link in errors. */
  readonly owner: string;
  readonly bucketBytes: number;
  readonly wire: WireFormat;
}

/** Sums tensors of weights over the ranks of a run, in buckets: what all links of this kind share. */
export interface Reducer {
  /** Makes the buckets; on one rank there is nothing to make. */
  prepare(): Promise<void>;
  /** Σ over ranks of factor · gradient, for each weight. */
  reduce(gradients: Updates, factor: number): Promise<Map<string, tf.Tensor>>;
  /** Counts bytes that a link sends besides. */
  count(bytes: number): void;
  /** What was exchanged. */
  report(): ExchangeReport;
  /** Frees the buckets. */
  dispose(): void;
}

/** @throws FrugalError `CONFIG` for bad options */
export function reducerSettings(owner: string, options: AllReduceOptions): ReducerSettings {
  checkOptions(owner, options, ['bucketBytes', 'wire']);
  return {
    owner,
    bucketBytes: checkInteger(owner, 'bucketBytes', options.bucketBytes ?? 25 * 2 ** 20, { min: 4 }),
    wire: checkChoice(owner, 'wire', options.wire ?? 'float32', Object.keys(wires) as WireFormat[]),
  };
}

/** Opens a reducer for one run; its `prepare` must be awaited. */
export function openReducer(settings: ReducerSettings, { params, communicator }: RunContext): Reducer {
  const { owner, bucketBytes } = settings;
  const wire = wires[settings.wire];
  const fullBytes = params.reduce((sum, { value }) => sum + 4 * value.size, 0);
  const sums = { steps: 0, bytes: 0, fullBytes: 0 };
  let buckets: readonly Bucket[] | undefined;
  return {
    async prepare() {
      if (communicator.size > 1) buckets ??= openBuckets(params, bucketBytes, await fastestSum());
    },
    async reduce(gradients, factor) {
      const pending: { readonly bucket: Bucket; readonly finish: () => Promise<void> }[] = [];
      // A bucket travels while the next ones are packed, and while those before it are unpacked.
      for (const bucket of buckets ?? unprepared(owner)) {
        const values = await bucket.pack(gradients, factor);
        pending.push({ bucket, finish: wire.start(values, communicator) });
        sums.bytes += wire.bytes(values.length);
      }
      const reduced = new Map<string, tf.Tensor>();
      for (const { bucket, finish } of pending) {
        await finish();
        for (const [name, tensor] of bucket.unpack()) reduced.set(name, tensor);
      }
      sums.steps++;
      sums.fullBytes += fullBytes;
      return reduced;
    },
    count: (bytes) => void (sums.bytes += bytes),
    report: () => ({ ...sums, bytesPerStep: sums.steps === 0 ? 0 : sums.bytes / sums.steps }),
    dispose: () => void (buckets = undefined),
  };
}

/**
 * Data parallelism: each rank has the gradient g_r of its own examples, and all go on with
 *
 *   g ← Σ_r share_r · g_r
 *
 * where share_r is the rank's share of the step's examples (`scope.share`), so that n ranks make the step of one rank with
 * the batch of all. Shapes stay. An `exchange` link, so it stands before the update; put it before gradient links too that are
 * not linear in g, as clipping. Ranks that start with equal weights stay equal to the bit, since all receive the same bits.
 *
 * Exact up to the order of the sum with `wire: 'float32'`; with `'bfloat16'` terms and sum are rounded, each by at most 2^-8
 * of its magnitude. Gradients travel in buckets, the next packed while the last is on its way; a weight without gradient
 * counts as zero. On one rank, gradients pass as they are.
 *
 * Cost: 4 bytes per weight and step (2 with `'bfloat16'`), times 2(n − 1)/n on the way from each of n ranks. Memory: the
 * buckets, 4 bytes per weight; none on one rank. No state.
 *
 * Source: buckets as in Li et al. 2020, PyTorch Distributed, arXiv 2006.15704, section 3.2; weighting by share is the mean
 * over all examples.
 *
 * @throws FrugalError `CONFIG` for an unknown option or a value outside its range; `COMMUNICATION` as its communicator does
 * @example
 * ```ts
 * const link = allReduce();
 * const report = await train(model, data, { optimizer: [link, sgd({ learningRate: 0.1 })], communicator: await mpi(), … });
 * console.log(report.of(link).bytesPerStep);
 * ```
 */
export function allReduce(options: AllReduceOptions = {}): ExchangeLink<ExchangeReport> {
  const settings = reducerSettings('allReduce', options);
  return {
    kind: 'exchange',
    name: 'allReduce',
    open(context) {
      const { prepare, reduce, report, dispose } = openReducer(settings, context);
      return {
        prepare,
        exchange: async (gradients, { share }) =>
          context.communicator.size === 1 ? new Map(gradients) : reduce(gradients, share),
        report,
        dispose,
      };
    },
  };
}
