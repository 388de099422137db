import type { Communicator, Param, RunContext } from '@frugal/core';
import { alone } from '../alone.js';

/** What the links of this package are opened with, without a model. For tests only. */
export function contextOf(params: readonly Param[], communicator: Communicator = alone()): RunContext {
  const context: Omit<RunContext, 'model'> = {
    params,
    statistics: [],
    sites: [],
    communicator,
    rateOf: ({ name }) => {
      throw new Error(`nobody told the rate of ${name}`);
    },
    opened: new Map(),
    once: (_key, make) => make(),
  };
  return context as RunContext;
}
