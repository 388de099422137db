import {
  type ExchangeLink,
  FrugalError,
  type OpenedExchange,
  type Param,
  putSlices,
  type RunContext,
  type SampledSlices,
  sampledSlices,
  type Scope,
  takeSlices,
  type Updates,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import {
  type AllReduceOptions,
  type ExchangeReport,
  openReducer,
  type Reducer,
  reducerSettings,
} from './all-reduce.js';

/** {@link SampledSlices} whose indices the host knows, ascending and distinct. */
interface HostSlices extends SampledSlices {
  readonly indices: Int32Array;
}

/** The slices that each sampled weight's gradient has, by weight name. */
type Samples = ReadonlyMap<string, HostSlices>;

/** Indices that lie on the engine are in the order in which they were drawn, and may repeat. */
async function onHost({ axis, indices }: SampledSlices): Promise<HostSlices> {
  if (indices instanceof Int32Array) return { axis, indices };
  return { axis, indices: Int32Array.from(new Set(await indices.data<'int32'>())).sort() };
}

/** All plans are read at once, since copies from a device overlap. */
async function samplesOf(params: readonly Param[], scope: Scope): Promise<Samples> {
  const samples = params.flatMap(({ name, value, site }) => {
    // The bias of a site is never sampled.
    const slices = site?.kernel === value ? sampledSlices(scope.plans.get(site)) : undefined;
    return slices ? [onHost(slices).then((read) => [name, read] as const)] : [];
  });
  return new Map(await Promise.all(samples));
}

/** FNV-1a over axis and indices: 32 bits, which float64 holds exactly. Equal on all ranks for equal plans. */
function checksum({ axis, indices }: HostSlices): number {
  let hash = 0x811c9dc5;
  for (const value of [axis, ...indices]) hash = Math.imul(hash ^ value, 0x01000193);
  // Not 0, which stands for no plan.
  return (hash >>> 0) + 1;
}

/** The checksum of each weight's plan, and its negative: the maxima over ranks show largest and smallest. */
function checksums(params: readonly Param[], samples: Samples): Float64Array {
  const sums = params.map(({ name }) => samples.get(name)).map((slices) => (slices ? checksum(slices) : 0));
  return Float64Array.from([...sums, ...sums.map((sum) => -sum)]);
}

/** All ranks see the same maxima, so all throw or none does. */
function checkAgreed(params: readonly Param[], maxima: Float64Array): void {
  const different = params.find((_, i) => maxima[i] !== -(maxima[params.length + i] as number));
  if (different === undefined) return;
  throw new FrugalError(
    'COMMUNICATION',
    `sampledAllReduce: expected the same plan on all ranks at site ${different.site?.name ?? different.name} but received different ones. Sample by weights, as in topK({ by: 'weights' }), and start all ranks with equal weights.`,
  );
}

/** The sampled gradients cut down to their slices, the others as they are. What was cut is the caller's. */
function cut(gradients: Updates, params: readonly Param[], samples: Samples): { small: Updates; cuts: tf.Tensor[] } {
  const small = new Map(gradients);
  const cuts: tf.Tensor[] = [];
  for (const { name } of params) {
    const gradient = gradients.get(name);
    const slices = samples.get(name);
    if (!gradient || !slices) continue;
    const taken = takeSlices(gradient, slices.axis, { indices: slices.indices });
    small.set(name, taken);
    cuts.push(taken);
  }
  return { small, cuts };
}

/** The sums in the shapes of the weights, zero where nothing was sent. Takes over the sums. */
function putBack(sums: Map<string, tf.Tensor>, params: readonly Param[], samples: Samples): Map<string, tf.Tensor> {
  for (const { name, value } of params) {
    const slices = samples.get(name);
    const sum = sums.get(name);
    if (!slices || !sum) continue;
    const { axis, indices } = slices;
    sums.set(name, putSlices(sum, axis, value.shape[axis] as number, { indices }));
    sum.dispose();
  }
  return sums;
}

/** One check that all ranks have the same plans: throws on all of them or on none. */
async function agree({ params, communicator }: RunContext, samples: Samples, { count }: Reducer): Promise<void> {
  const sums = checksums(params, samples);
  count(sums.byteLength);
  await communicator.allReduce(sums, 'max');
  checkAgreed(params, sums);
}

function openSampled(reducer: Reducer, context: RunContext): OpenedExchange<ExchangeReport> {
  const { params, communicator } = context;
  const { prepare, reduce, report, dispose } = reducer;
  return {
    prepare,
    async exchange(gradients, scope) {
      if (communicator.size === 1) return new Map(gradients);
      const samples = await samplesOf(params, scope);
      await agree(context, samples, reducer);
      const { small, cuts } = cut(gradients, params, samples);
      const sums = await reduce(small, scope.share);
      tf.dispose(cuts);
      return putBack(sums, params, samples);
    },
    report,
    dispose,
  };
}

/**
 * As {@link allReduce}, but of a weight whose product was sampled only the slices of its gradient travel that the sample
 * has; elsewhere dW is zero on every rank:
 *
 *   dW[S] ← Σ_r share_r · dW_r[S],   S the chosen input channels (axis 0 of dense weights [K, M], axis 2 of convolutions
 *   [h, w, C, M]).
 *
 * All ranks must choose alike without a word: the plan depends on the weights only, as with `topK({ by: 'weights' })`, mode
 * `through`, and the weights start equal; then they stay equal to the bit. Which slices a gradient has is what the plan of
 * its site says (`sampled`); weights without such a plan (biases, gains, exact layers) travel whole. An `exchange` link: put
 * it first in the chain, since gradient links, as K-FAC, may fill the slices that were not chosen.
 *
 * Adds nothing to the bias of the sample: n ranks make the step of one rank with the same plan and the batch of all.
 *
 * Cost: 4·k/n bytes per weight of a sampled layer that keeps k of n channels and 4 per other weight (half with
 * `'bfloat16'`), and 16 bytes per weight tensor for a check that all plans are the same, which is awaited first, since sums
 * of different lengths cannot be begun. A plan whose indices lie on the engine is read from there. Memory and transport as
 * for {@link allReduce}. No state.
 *
 * Source: Adelman, Levy, Hakimi, Silberstein: Faster Neural Network Training with Approximate Tensor Operations, NeurIPS
 * 2021, arXiv 1805.08079, section on multi-node training.
 *
 * @throws FrugalError `CONFIG` for bad options; `COMMUNICATION`, with the site, where plans differ between ranks
 * @example
 * ```ts
 * await train(model, data, {
 *   methods: [topK({ keep: 0.34, by: 'weights' })],
 *   optimizer: [sampledAllReduce(), sgd({ learningRate: 0.1, momentum: 0.9 })],
 *   communicator: await mpi(),
 *   …
 * });
 * ```
 */
export function sampledAllReduce(options: AllReduceOptions = {}): ExchangeLink<ExchangeReport> {
  const settings = reducerSettings('sampledAllReduce', options);
  return {
    kind: 'exchange',
    name: 'sampledAllReduce',
    open: (context) => openSampled(openReducer(settings, context), context),
  };
}
