import { checkInteger, clockAt } from '@frugal/core';
import { localCluster } from '../local.js';
import type { DecentralizedLink, DecentralizedReport, OpenedRecursion } from './link.js';
import type { RankVectors } from './recursion.js';

/** Options of {@link simulate}. */
export interface SimulateOptions {
  /** Weights of each rank at the start; their number is the number of ranks. They are left as they are. */
  readonly start: readonly (readonly number[] | Float64Array)[];
  /** ∇f_rank at x in this step. */
  readonly gradient: (rank: number, x: Float64Array, step: number) => ArrayLike<number>;
  /** Steps to make, from 0. */
  readonly steps: number;
  /** Steps of the whole run, for schedules. Default: `steps`. */
  readonly total?: number;
  /** Called after each step with the weights of all ranks, which are borrowed; `false` stops. */
  readonly observe?: (weights: readonly Float64Array[], step: number) => boolean | undefined;
  /** Called at the end with what each rank has sent, in the order of ranks. */
  readonly report?: (reports: readonly DecentralizedReport[]) => void;
}

/**
 * Runs a link on plain functions in float64, all ranks in lockstep: for convex examples with a known answer, and for
 * figures that float32 would blur. Each rank opens the recursion of the link for itself.
 *
 * @returns the weights of each rank at the end
 * @throws FrugalError as the link does
 * @example
 * ```ts
 * const link = decentlam({ learningRate: 0.01, topology: ring() });
 * const centers = [0, 1, 2, 3]; // f_i = ½(x − c_i)²
 * const ends = await simulate(link, {
 *   start: centers.map(() => [0]),
 *   gradient: (rank, x) => x.map((value) => value - (centers[rank] ?? 0)),
 *   steps: 1000,
 * });
 * ```
 */
export async function simulate(link: DecentralizedLink, options: SimulateOptions): Promise<Float64Array[]> {
  const { start, gradient, steps, total = steps, observe, report } = options;
  checkInteger('simulate', 'steps', steps, { min: 0 });
  const { communicators } = localCluster(start.length, { timeoutSeconds: 0 });
  const recursions = communicators.map((communicator) => link.openRecursion(communicator));
  await Promise.all(recursions.map((recursion) => recursion.prepare()));
  const ranks: RankVectors<Float64Array>[] = start.map((values) => ({
    x: Float64Array.from(values),
    g: new Float64Array(values.length),
    state: Object.fromEntries(link.slots.map((slot) => [slot, new Float64Array(values.length)])),
  }));
  const weights = ranks.map(({ x }) => x);
  for (let step = 0; step < steps; step++) {
    const clock = clockAt(step, total);
    await Promise.all(
      ranks.map((vectors, rank) => {
        vectors.g.set(gradient(rank, vectors.x, step));
        return (recursions[rank] as OpenedRecursion).advance(vectors, clock);
      }),
    );
    if (observe?.(weights, step) === false) break;
  }
  report?.(recursions.map((recursion) => recursion.report()));
  return weights;
}
