import * as tf from '@tensorflow/tfjs';
import type { Communicator, Numbers, Reduction } from '../communicator.js';
import type { ExchangeLink } from '../link.js';

/**
 * One rank of `size` ranks that all hold the same values, without the others: a sum is `size` times the own value.
 * For tests of links; `localCluster` of `@frugal/cluster` has real ranks.
 */
export function twinRanks(size: number): Communicator {
  const repeat = <T extends Numbers>(values: T): T => {
    const all = Array.from({ length: size }, () => [...values]).flat();
    return new (values.constructor as new (from: number[]) => T)(all);
  };
  return {
    rank: 0,
    size,
    allReduce: async (values, reduction = 'sum') => {
      if (reduction === 'sum') values.forEach((v, i) => (values[i] = size * v));
    },
    allGather: async (values) => repeat(values),
    broadcast: async () => undefined,
    exchange: async (values, { from }) => from.map(() => values.slice() as typeof values),
    barrier: async () => undefined,
    split: async () => twinRanks(size),
  };
}

const REDUCE: Record<Reduction, (a: number, b: number) => number> = {
  sum: (a, b) => a + b,
  max: Math.max,
  min: Math.min,
};

/** One operation of all ranks: what each brought, and the end of waiting. */
interface Round {
  readonly parts: Numbers[];
  readonly complete: Promise<void>;
  finish(): void;
}

function newRound(): Round {
  let finish = (): void => undefined;
  const complete = new Promise<void>((resolve) => (finish = resolve));
  return { parts: [], complete, finish };
}

/** Ranks that meet in rounds; those of a split meet in rounds of their own. */
function meeting(size: number): Communicator[] {
  const rounds: Round[] = [];
  const splits = new Map<string, Communicator[]>();
  return Array.from({ length: size }, (_, rank): Communicator => {
    let turn = 0;
    const together = async (values: Numbers): Promise<Numbers[]> => {
      const round = (rounds[turn++] ??= newRound());
      round.parts[rank] = values.slice();
      if (Object.keys(round.parts).length === size) round.finish();
      await round.complete;
      return round.parts;
    };
    return {
      rank,
      size,
      async allReduce(values, reduction = 'sum') {
        const parts = await together(values);
        values.forEach(
          (_, i) => (values[i] = parts.map((part) => part[i] as number).reduce((a, b) => REDUCE[reduction](a, b))),
        );
      },
      async allGather<T extends Numbers>(values: T) {
        const all = (await together(values)).flatMap((part) => [...part]);
        return new (values.constructor as new (from: number[]) => T)(all);
      },
      broadcast: async (values, root = 0) => values.set((await together(values))[root] as Numbers),
      async exchange<T extends Numbers>(values: T, { from }: { from: readonly number[] }) {
        const parts = await together(values);
        return from.map((source) => parts[source] as T);
      },
      barrier: () => together(new Int32Array(0)).then(() => undefined),
      async split(color) {
        const colors = (await together(Int32Array.of(color))).map(([own]) => own);
        const group = colors.flatMap((own, index) => (own === color ? [index] : []));
        const key = `${turn}/${color}`;
        const parts = splits.get(key) ?? meeting(group.length);
        splits.set(key, parts);
        return parts[group.indexOf(rank)] as Communicator;
      },
    };
  });
}

/**
 * Runs `body` on `size` ranks in this process, which wait for one another in every operation. The shortest thing that has
 * ranks with values of their own; it checks nothing, and a rank that fails lets the others wait, so the first failure
 * ends it. `localCluster` of `@frugal/cluster` does all that.
 */
export async function runRanks<R>(size: number, body: (communicator: Communicator) => Promise<R>): Promise<R[]> {
  return Promise.all(meeting(size).map(body));
}

/** The gradient of the whole batch: the sum over ranks of share × gradient. `weigh` replaces the share, for controls. */
export function meanGradient(weigh?: (communicator: Communicator) => number): ExchangeLink {
  return {
    kind: 'exchange',
    name: 'meanGradient',
    open: ({ communicator }) => ({
      async exchange(gradients, scope) {
        const result = new Map<string, tf.Tensor>();
        for (const [name, gradient] of gradients) {
          const share = weigh ? weigh(communicator) : scope.share;
          const values = Float32Array.from(await gradient.data(), (v) => v * share);
          await communicator.allReduce(values);
          result.set(name, tf.tensor(values, gradient.shape));
        }
        return result;
      },
    }),
  };
}
