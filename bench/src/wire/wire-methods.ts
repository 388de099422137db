import { allReduce, decentlam, type ExchangeReport, lazy, onePeerHypercube, sampledAllReduce } from '@frugal/cluster';
import type { Method, Reporting, StepperOptions } from '@frugal/core';
import { sgd } from '@frugal/optim';
import { topK } from '@frugal/sampling';
import { onePeer, type Pattern, ringAllReduce } from './cost-model.js';

/** Part of the channels that sampling keeps. */
export const KEEP = 0.34;

/** One way to exchange, and the same training without. */
export interface WireMethod {
  readonly key: string;
  readonly title: string;
  /** Options of a run alone: the same arithmetic, nothing sent. */
  alone(): StepperOptions;
  /** Options with the exchange, and the link that tells what it has sent. */
  make(): { readonly options: StepperOptions; readonly link: Reporting<ExchangeReport> };
  /** Messages and bytes as a function of the number of ranks, from the bytes of a step. */
  pattern(payload: number): Pattern;
}

const rate = { learningRate: 0.01, momentum: 0.9 };
const byWeights = (): Method[] => [topK({ keep: KEEP, by: 'weights' })];

function reduced(link: ReturnType<typeof allReduce>, methods: readonly Method[]) {
  return { options: { optimizer: [link, sgd(rate)], methods }, link };
}

/** What is compared. */
export const wireMethods: readonly WireMethod[] = [
  {
    key: 'all_reduce',
    title: 'all-reduce',
    alone: () => ({ optimizer: sgd(rate) }),
    make: () => reduced(allReduce(), []),
    pattern: ringAllReduce,
  },
  {
    key: 'sampled',
    title: `sampled all-reduce, keep ${KEEP}`,
    alone: () => ({ optimizer: sgd(rate), methods: byWeights() }),
    make: () => reduced(sampledAllReduce(), byWeights()),
    pattern: ringAllReduce,
  },
  {
    key: 'one_peer',
    title: 'DecentLaM, one peer a step',
    alone: () => ({ optimizer: sgd(rate) }),
    make() {
      const link = decentlam({ ...rate, topology: lazy(onePeerHypercube()) });
      return { options: { optimizer: link }, link };
    },
    pattern: onePeer,
  },
];
