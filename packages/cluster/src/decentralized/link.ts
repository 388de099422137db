import {
  checkOptions,
  type Clock,
  type Communicator,
  FrugalError,
  type Hyper,
  hyper,
  openVectors,
  type Param,
  type Schedule,
  type Scope,
  show,
  weightedSum,
} from '@frugal/core';
import type { CountedExchange, ExchangeReport } from '../all-reduce.js';
import type { Topology } from '../topology/topology.js';
import { createFlat, type Flat } from './flat.js';
import { type Mixer, openMixer } from './mixer.js';
import type { RankVectors, Recursion } from './recursion.js';

/** What all decentralized links accept. */
export interface DecentralizedOptions {
  /** γ ≥ 0. */
  readonly learningRate: Hyper;
  /** Who averages with whom. */
  readonly topology: Topology;
  /** λ ≥ 0: λ·x is added to the gradient before the exchange, not decoupled. Default 0. */
  readonly weightDecay?: Hyper;
  /** Which weights decay. Default: those of rank ≥ 2, so that biases and gains do not. */
  readonly decay?: (param: Param) => boolean;
}

/** Options of the links with momentum. */
export interface MomentumOptions extends DecentralizedOptions {
  /** β in [0, 1). Default 0.9, as in the DecentLaM paper, unless the link says otherwise. */
  readonly momentum?: Hyper;
}

/** What a link has sent to other ranks, and between whom. */
export interface DecentralizedReport extends ExchangeReport {
  /** The topology in use: the one given, or what the method needs instead. Before the first step, the one given. */
  readonly topology: string;
}

/**
 * A method of decentralized training: optimizer of a rank and exchange with its neighbours in one, so it must be the last
 * link of a chain. Every rank makes its own, and starts from the same weights. Minimises the mean of the ranks' losses, each
 * weighted by the rank's share of the examples (`scope.share`).
 */
export interface DecentralizedLink extends CountedExchange {
  /** Names of the vectors of its state. */
  readonly slots: readonly string[];
  /**
   * One step on plain vectors, what `exchange` runs on the weights: moves `x` and `state`, uses up `g`. The gradient is taken
   * as it is, without weight decay and share.
   */
  advance(vectors: RankVectors, clock: Clock, communicator: Communicator): Promise<void>;
  /** The values its hyper-parameters have at this step, for logs. */
  hyperparameters(scope: Pick<Scope, 'clock'>): Record<string, number>;
  /** Bytes sent to other ranks since the link was made, each receiver counted, and the topology. */
  report(): DecentralizedReport;
}

/** What a method is made of, beside its recursion. */
interface Traits {
  /** Name of the factory. */
  readonly name: string;
  /** β where none is given; absent for a method without momentum. */
  readonly momentum?: number;
  /** Options of its own, beside those of all. */
  readonly known?: readonly string[];
  /** Checks the topology for this number of ranks and returns the one to use. Throws `CONFIG`. */
  prepare?(topology: Topology, size: number): Topology | Promise<Topology>;
}

/** What a method is made of. */
export type Design<Slot extends string> = Traits & Recursion<Slot>;

interface Settings {
  readonly learningRate: Schedule;
  readonly momentum: Schedule;
  readonly weightDecay: Schedule;
  readonly decays: (param: Param) => boolean;
}

function settle(design: Traits, options: MomentumOptions): Settings {
  const { name } = design;
  const moving = design.momentum !== undefined;
  const known = ['learningRate', ...(moving ? ['momentum'] : []), 'topology', 'weightDecay', 'decay'];
  checkOptions(name, options, [...known, ...(design.known ?? [])]);
  if (typeof options.topology?.weights !== 'function') {
    throw new FrugalError(
      'CONFIG',
      `${name}: expected topology to be a Topology but received ${show(options.topology)}. Pass one, as in ring().`,
    );
  }
  const decays = options.decay ?? ((param: Param) => param.value.shape.length >= 2);
  if (typeof decays !== 'function') {
    throw new FrugalError(
      'CONFIG',
      `${name}: expected decay to be a function of a Param but received ${show(decays)}.`,
    );
  }
  return {
    learningRate: hyper(name, 'learningRate', options.learningRate, { min: 0 }),
    momentum: hyper(name, 'momentum', options.momentum ?? design.momentum ?? 0, { min: 0, max: 1, belowMax: true }),
    weightDecay: hyper(name, 'weightDecay', options.weightDecay ?? 0, { min: 0 }),
    decays,
  };
}

/** γ of now over γ of so many steps ago; the first step counts as its own past. */
function rateRatio(rate: Schedule, clock: Clock, ago: number): number {
  const past: Clock = {
    step: Math.max(0, clock.step - ago),
    // A getter, since reading `total` throws where it is unknown.
    get total() {
      return clock.total;
    },
  };
  const before = rate(past);
  return before === 0 ? 0 : rate(clock) / before;
}

/** Runs a recursion on the vectors of a rank, and counts what it sends. */
function openRunner<Slot extends string>(
  design: Design<Slot>,
  given: Topology,
  { learningRate, momentum }: Settings,
): Pick<DecentralizedLink, 'advance' | 'report'> {
  // Each made at its first step, when the number of ranks is known.
  const mixers = new Map<Communicator, Mixer>();
  const mixerOf = async (communicator: Communicator): Promise<Mixer> => {
    const known = mixers.get(communicator);
    if (known) return known;
    const topology = design.prepare ? await design.prepare(given, communicator.size) : given;
    const mixer = openMixer(topology, communicator);
    mixers.set(communicator, mixer);
    return mixer;
  };
  let steps = 0;
  let fullBytes = 0;
  return {
    async advance({ x, g, state }, clock, communicator) {
      const mixer = await mixerOf(communicator);
      await design.iterate({
        x,
        g,
        state,
        step: clock.step,
        rate: learningRate(clock),
        momentum: momentum(clock),
        rateRatio: (ago) => rateRatio(learningRate, clock, ago),
        mix: (values) => mixer.mix(values, clock.step),
        average: (values) => mixer.average(values),
      });
      steps++;
      fullBytes += x.byteLength;
    },
    report() {
      const used = [...mixers.values()];
      const bytes = used.reduce((sum, mixer) => sum + mixer.sent(), 0);
      const topology = (used[0]?.topology ?? given).name;
      return { topology, steps, bytes, bytesPerStep: steps === 0 ? 0 : bytes / steps, fullBytes };
    },
  };
}

/**
 * g ← n·share·g, so that the mean of the ranks' losses is the mean over all examples where parts of a batch differ in size;
 * then g ← g + λ·x where weights decay.
 */
function prepareGradient(flat: Flat, { x, g }: RankVectors, weight: number, decay: (param: Param) => number): void {
  flat.each((param, start, end) => {
    const lambda = decay(param);
    if (weight === 1 && lambda === 0) return;
    const part = g.subarray(start, end);
    weightedSum(part, [weight, lambda], [part, x.subarray(start, end)]);
  });
}

/** Makes the link of a method: flattens weights and state, runs its recursion, and returns ΔW. */
export function decentralizedLink<Slot extends string>(
  design: Design<Slot>,
  options: MomentumOptions,
): DecentralizedLink {
  const settings = settle(design, options);
  const { learningRate, momentum, weightDecay, decays } = settings;
  const { advance, report } = openRunner(design, options.topology, settings);
  const flat = createFlat(design.name, design.slots);
  return {
    kind: 'exchange',
    name: design.name,
    slots: design.slots,
    advance,
    init: (params) => flat.init(params),
    async exchange(updates, params, { clock, share }, communicator) {
      await openVectors();
      const vectors = await flat.load(updates, params);
      const lambda = weightDecay(clock);
      prepareGradient(flat, vectors, communicator.size * share, (param) => (decays(param) ? lambda : 0));
      await advance(vectors, clock, communicator);
      return flat.store(vectors);
    },
    state: () => flat.state(),
    hyperparameters: ({ clock }) => ({
      learningRate: learningRate(clock),
      ...(design.momentum !== undefined && { momentum: momentum(clock) }),
      ...((options.weightDecay ?? 0) !== 0 && { weightDecay: weightDecay(clock) }),
    }),
    report,
    dispose: () => flat.dispose(),
  };
}
