import {
  checkOptions,
  type Clock,
  type Communicator,
  fastestSum,
  FrugalError,
  type Hyper,
  hyper,
  type OpenedUpdate,
  type Param,
  type RunContext,
  type Schedule,
  show,
  unprepared,
  type UpdateLink,
  type WeightedSum,
} from '@frugal/core';
import type { ExchangeReport } from '../all-reduce.js';
import type { Topology } from '../topology/topology.js';
import { type Flat, openFlat } from './flat.js';
import { type Mixer, openMixer } from './mixer.js';
import type { RankVectors, Recursion } from './recursion.js';

/** What all decentralized links accept. */
export interface DecentralizedOptions {
  /** γ ≥ 0. */
  readonly learningRate: Hyper;
  /** Who averages with whom. */
  readonly topology: Topology;
  /** λ ≥ 0: λ·x is added to the gradient before the exchange, not decoupled: the meaning that it has in `sgd` too. Default 0. */
  readonly weightDecay?: Hyper;
  /** Which weights decay. Default: those of rank ≥ 2, so that biases and gains do not. */
  readonly decay?: (param: Param) => boolean;
}

/** Options of the links with momentum. */
export interface MomentumOptions extends DecentralizedOptions {
  /** β in [0, 1). Default 0.9, as in the DecentLaM paper, unless the link says otherwise. */
  readonly momentum?: Hyper;
}

/** What one rank has sent to others in a run, each receiver counted, and between whom. */
export interface DecentralizedReport extends ExchangeReport {
  /** The topology in use: the one given, or what the method needs instead. Before `prepare`, the one given. */
  readonly topology: string;
}

/** The recursion of a method at one rank, on plain vectors. */
export interface OpenedRecursion {
  /** Settles who averages with whom, and loads what adds. Must be awaited before the first step; later calls do nothing. */
  prepare(): Promise<void>;
  /**
   * One step of this rank, which all ranks make together: moves `x` and `state`, uses up `g`. The gradient is taken as it is,
   * without weight decay and share.
   */
  advance(vectors: RankVectors, clock: Clock): Promise<void>;
  /** What this rank has sent. */
  report(): DecentralizedReport;
}

/**
 * A method of decentralized training: optimizer of a rank and exchange with its neighbours in one. The `update` of a chain,
 * which has no other; gradient links stand before it, weights links behind it. It moves all weights that it is opened with, as a
 * weight without gradient takes part in the exchange too. One description serves all ranks, which start from the same weights.
 * Minimises the mean of the ranks' losses, each weighted by the rank's share of the examples (`scope.share`).
 */
export interface DecentralizedLink extends UpdateLink<DecentralizedReport> {
  /** Names of the vectors of its state. */
  readonly slots: readonly string[];
  /** Opens the recursion alone, for one rank: what a run makes its steps with, on vectors of any kind of problem. */
  openRecursion(communicator: Communicator): OpenedRecursion;
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

/** What a recursion needs of its run; there once it is prepared. */
interface Tools {
  readonly sum: WeightedSum;
  readonly mixer: Mixer;
}

async function loadTools<Slot extends string>(
  design: Design<Slot>,
  given: Topology,
  communicator: Communicator,
): Promise<Tools> {
  const topology = design.prepare ? await design.prepare(given, communicator.size) : given;
  const sum = await fastestSum();
  return { sum, mixer: openMixer(topology, communicator, sum) };
}

/** Runs a recursion on the vectors of a rank, and counts what it sends. */
function openRecursion<Slot extends string>(
  design: Design<Slot>,
  given: Topology,
  { learningRate, momentum }: Settings,
  communicator: Communicator,
): OpenedRecursion {
  let tools: Tools | undefined;
  let steps = 0;
  let fullBytes = 0;
  return {
    async prepare() {
      tools ??= await loadTools(design, given, communicator);
    },
    async advance({ x, g, state }, clock) {
      const { sum, mixer } = tools ?? unprepared(design.name);
      await design.iterate({
        x,
        g,
        state,
        step: clock.step,
        rate: learningRate(clock),
        momentum: momentum(clock),
        rateRatio: (ago) => rateRatio(learningRate, clock, ago),
        combine: (into, a, first, b, second) => sum(into, [a, b], [first, second]),
        mix: (values) => mixer.mix(values, clock.step),
        average: (values) => mixer.average(values),
      });
      steps++;
      fullBytes += x.byteLength;
    },
    report() {
      const bytes = tools?.mixer.sent() ?? 0;
      const topology = (tools?.mixer.topology ?? given).name;
      return { topology, steps, bytes, bytesPerStep: steps === 0 ? 0 : bytes / steps, fullBytes };
    },
  };
}

/**
 * g ← n·share·g, so that the mean of the ranks' losses is the mean over all examples where parts of a batch differ in size;
 * then g ← g + λ·x where weights decay.
 */
function prepareGradient(
  flat: Flat,
  { x, g }: RankVectors,
  weight: number,
  decay: (param: Param) => number,
  sum: WeightedSum,
): void {
  flat.each((param, start, end) => {
    const lambda = decay(param);
    if (weight === 1 && lambda === 0) return;
    const part = g.subarray(start, end);
    sum(part, [weight, lambda], [part, x.subarray(start, end)]);
  });
}

/** Opens a link for one run: flattens weights and state, runs the recursion, and moves the weights to where it ends. */
function openLink(
  { name, slots }: Pick<DecentralizedLink, 'name' | 'slots'>,
  { weightDecay, decays }: Settings,
  recursion: OpenedRecursion,
  { params, communicator }: RunContext,
): OpenedUpdate<DecentralizedReport> {
  const flat = openFlat(name, slots, params);
  let sum: WeightedSum | undefined;
  return {
    async prepare() {
      await recursion.prepare();
      sum = await fastestSum();
    },
    async apply(gradients, { clock, share }) {
      const adding = sum ?? unprepared(name);
      const vectors = await flat.load(gradients);
      const lambda = weightDecay(clock);
      prepareGradient(flat, vectors, communicator.size * share, (param) => (decays(param) ? lambda : 0), adding);
      await recursion.advance(vectors, clock);
      flat.store(vectors);
    },
    state: () => flat.state(),
    report: () => recursion.report(),
    dispose: () => flat.dispose(),
  };
}

/** Makes the link of a method. Throws `CONFIG` for bad options. */
export function decentralizedLink<Slot extends string>(
  design: Design<Slot>,
  options: MomentumOptions,
): DecentralizedLink {
  const settings = settle(design, options);
  const { learningRate, momentum, weightDecay } = settings;
  const moving = design.momentum !== undefined;
  const decaying = (options.weightDecay ?? 0) !== 0;
  const link: DecentralizedLink = {
    kind: 'update',
    name: design.name,
    exchanges: true,
    slots: design.slots,
    rateOf: () => learningRate,
    openRecursion: (communicator) => openRecursion(design, options.topology, settings, communicator),
    open: (context) => ({
      ...openLink(link, settings, link.openRecursion(context.communicator), context),
      hyperparameters: ({ clock }) => ({
        learningRate: learningRate(clock),
        ...(moving && { momentum: momentum(clock) }),
        ...(decaying && { weightDecay: weightDecay(clock) }),
      }),
    }),
  };
  return link;
}
