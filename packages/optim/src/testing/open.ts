import {
  type Communicator,
  type Link,
  oneRank,
  type OpenedLink,
  type Param,
  type RunContext,
  type Schedule,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** What a link without a model is opened with: these weights, one rank, and a learning rate for whoever asks. */
export function contextOf(
  params: readonly Param[],
  { rate = () => 1, communicator = oneRank }: { rate?: Schedule; communicator?: Communicator } = {},
): RunContext {
  const made = new Map<object, unknown>();
  return {
    model: tf.sequential(),
    params,
    statistics: [],
    sites: params.flatMap(({ site }) => site ?? []),
    communicator,
    opened: new Map(),
    rateOf: () => rate,
    once<T>(key: object, make: () => T): T {
      if (!made.has(key)) made.set(key, make());
      return made.get(key) as T;
    },
  };
}

/** Opens a link for weights of a test, in the form of its kind. */
export function openLink<L extends Link>(
  link: L,
  params: readonly Param[],
  more?: Parameters<typeof contextOf>[1],
): ReturnType<L['open']> {
  return link.open(contextOf(params, more)) as OpenedLink as ReturnType<L['open']>;
}
