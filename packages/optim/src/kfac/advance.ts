import { FrugalError, type Schedule, type Scope, type Updates } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { gradientOf, type Layer, updatesOf } from './layers.js';
import type { FactorKey, Solved } from './decompositions.js';
import type { FactorPair } from './factors.js';
import type { Parts } from './parts.js';
import type { Team } from './team.js';

/** A computation that waits where it yields a promise; on one rank it never does. */
export type Waiting<T> = Generator<Promise<unknown>, T, unknown>;

function* wait<T>(promise: Promise<T>): Waiting<T> {
  return (yield promise) as T;
}

/** Runs to the end what does not wait. */
export function runNow<T>(computation: Waiting<T>): T {
  const next = computation.next();
  if (!next.done) throw new Error('kfac: a computation on one rank waits for another.');
  return next.value;
}

/** Runs to the end what may wait. */
export async function runAwaiting<T>(computation: Waiting<T>): Promise<T> {
  let next = computation.next();
  while (!next.done) next = computation.next(await next.value);
  return next.value;
}

function unseen(): never {
  throw new FrugalError(
    'CONFIG',
    'kfac: expected to have seen x and dY of every layer in this step but did not. Pass the method as well as its link: train(model, data, { methods: [k], … }).',
  );
}

/** All ranks see the same sums, so all throw or none does, and no rank waits for one that has thrown. */
function checkSums(sums: Float32Array): void {
  if (sums.every(Number.isFinite)) return;
  throw new FrugalError(
    'NON_FINITE',
    'kfac: expected finite factors but their sum over ranks is not. Lower the learning rate, or raise the damping.',
  );
}

/** Running averages of factors, with those of this step's examples on all ranks. */
function* absorb(
  { factors, counts, clockwork, corrections, seen, seenOf }: Parts,
  scope: Scope,
  team: Team | undefined,
): Waiting<void> {
  let started = performance.now();
  const { updates } = counts.now();
  if (team) {
    const packed = tf.tidy(() => team.pack(factors.batch(scope) ?? unseen(), scope.share));
    clockwork.add('factors', started);
    started = performance.now();
    yield* wait(team.sum(packed));
    clockwork.add('exchange', started);
    started = performance.now();
    checkSums(packed);
    tf.tidy(() => factors.average(team.open(packed), scope.clock, updates));
  } else {
    tf.tidy(() => factors.average(factors.batch(scope) ?? unseen(), scope.clock, updates));
  }
  tf.tidy(() => corrections?.average(scope, (site) => seenOf(scope, site)?.examples ?? 0));
  seen.forget();
  counts.write({ updates: updates + 1 });
  clockwork.add('factors', started);
}

const allKeys = (layers: readonly Layer[]): FactorKey[] =>
  layers.flatMap((_, layer) => (['a', 'g'] as const).map((side) => ({ layer, side })));

/** Begins to decompose factors, those of this rank. */
function begin(
  { decompositions, layers, clockwork, algebra }: Parts,
  from: readonly FactorPair[],
  damping: number,
  team?: Team,
): void {
  const started = performance.now();
  decompositions.start(algebra(), team?.keys ?? allKeys(layers), from, damping);
  clockwork.add('decompose', started);
}

/** Waits for what was begun, and takes it into use. */
function* install({ decompositions, clockwork }: Parts, team: Team | undefined): Waiting<void> {
  const started = performance.now();
  const own = decompositions.join();
  clockwork.add('decompose', started);
  const exchanging = performance.now();
  const solved: readonly Solved[] = team ? yield* wait(team.gather(own)) : own;
  clockwork.add('exchange', exchanging);
  decompositions.install(solved);
}

/** The bases have changed, so their second moments begin at what K-FAC takes for them. */
function resetCorrections({ corrections, decompositions, layers }: Parts): void {
  if (!corrections) return;
  tf.tidy(() => {
    for (const i of layers.keys()) {
      const { a, g } = decompositions.of(i) as { a: tf.Tensor[]; g: tf.Tensor[] };
      corrections.reset(new Map([[i, tf.outerProduct(a[1] as tf.Tensor1D, g[1] as tf.Tensor1D)]]));
    }
  });
}

/** Takes into use what was begun on the averages of now, and remembers them as decomposed. */
function* finish(parts: Parts, team: Team | undefined): Waiting<void> {
  yield* install(parts, team);
  parts.factors.remember();
  resetCorrections(parts);
  const { begun, damping } = parts.counts.now();
  parts.counts.write({ installed: begun, installedDamping: damping });
}

/**
 * After a checkpoint was loaded: decomposes again what was in use, and begins again what was under way; else nothing.
 */
export function* restore(parts: Parts, team: Team | undefined): Waiting<void> {
  const { counts, factors } = parts;
  if (!counts.restored()) return;
  const at = counts.now();
  if (at.installed > 0) {
    begin(parts, factors.decomposed(), at.installedDamping, team);
    yield* install(parts, team);
  }
  if (at.begun > at.installed) begin(parts, factors.averages(), at.damping, team);
}

/** Factors and decompositions of this step. */
function* refresh(parts: Parts, scope: Scope, damping: number, team: Team | undefined): Waiting<void> {
  const { factors, counts, settings, due } = parts;
  // Asked of the counts: a rank may have nothing to decompose, and still receives what others do.
  const pending = (): boolean => counts.now().begun > counts.now().installed;
  yield* restore(parts, team);
  if (due(scope.clock)) {
    if (pending()) yield* finish(parts, team);
    yield* absorb(parts, scope, team);
  }
  const at = counts.now();
  const every = Math.max(1, Math.round(settings.inverseEvery(scope.clock)));
  if (at.updates === 0 || (at.begun > 0 && scope.clock.step % every !== 0)) return;
  if (pending()) yield* finish(parts, team);
  const rounded = Math.fround(damping);
  begin(parts, factors.averages(), rounded, team);
  counts.write({ begun: at.begun + 1, damping: rounded });
  if (!settings.overlap || at.installed === 0) yield* finish(parts, team);
}

/** P of the layers that have a gradient, those of this rank; on many ranks of all, from the others. */
function* precondition(
  { decompositions, layers, clockwork, corrections }: Parts,
  updates: Updates,
  damping: number,
  team: Team | undefined,
): Waiting<Map<Layer, tf.Tensor2D>> {
  const started = performance.now();
  const moves = ({ kernel }: Layer): boolean => updates.has(kernel.name);
  // Ranks send all of their layers, so that the others know where each begins: zeros for one without a gradient.
  const chosen = (team?.layers ?? layers.map((_, i) => i)).filter((i) => team?.sends || moves(layers[i] as Layer));
  const own = tf.tidy(() => {
    const of = (layer: Layer): tf.Tensor2D => gradientOf(layer, updates) ?? tf.zeros([layer.a, layer.g]);
    const gradients = new Map(chosen.map((i) => [i, of(layers[i] as Layer)]));
    const preconditioned = decompositions.precondition(gradients, damping, corrections);
    return chosen.map((i) => preconditioned.get(i) as tf.Tensor2D);
  });
  clockwork.add('precondition', started);
  if (!team?.sends) return new Map(chosen.map((i, k) => [layers[i] as Layer, own[k] as tf.Tensor2D]));
  const exchanging = performance.now();
  const all = yield* wait(team.collect(own.map((tensor) => tensor.dataSync() as Float32Array)));
  tf.dispose(own);
  clockwork.add('exchange', exchanging);
  const matrix = ({ a, g }: Layer, i: number): tf.Tensor2D => tf.tensor2d((all[i] as Float32Array).slice(), [a, g]);
  return new Map(layers.flatMap((layer, i) => (moves(layer) ? [[layer, matrix(layer, i)] as const] : [])));
}

/** Σ over layers of Σ P ⊙ ∇, as a tensor. */
function innerProduct(preconditioned: ReadonlyMap<Layer, tf.Tensor2D>, updates: Updates): tf.Tensor {
  return tf.addN(
    [...preconditioned].map(([layer, matrix]) => tf.sum(tf.mul(matrix, gradientOf(layer, updates) as tf.Tensor2D))),
  );
}

/** Keeps a quotient finite in float32. */
const SMALLEST = 1e-30;

/** |Σ η²·P ⊙ ∇|: each layer by the rate of the update that moves it. */
function predictedChange(
  { rateOf }: Parts,
  preconditioned: ReadonlyMap<Layer, tf.Tensor2D>,
  updates: Updates,
  { clock }: Scope,
): tf.Tensor {
  const byRate = new Map<Schedule, Map<Layer, tf.Tensor2D>>();
  for (const [layer, matrix] of preconditioned) {
    const rate = rateOf(layer.kernel);
    byRate.set(rate, (byRate.get(rate) ?? new Map<Layer, tf.Tensor2D>()).set(layer, matrix));
  }
  const terms = [...byRate].map(([rate, part]) => tf.mul(innerProduct(part, updates), rate(clock) * rate(clock)));
  return tf.abs(terms.length === 1 ? (terms[0] as tf.Tensor) : tf.addN(terms));
}

/** ν·P as gradients, ν = min(1, √(κ / |Σ η²·P ⊙ ∇|)). */
function clipped(parts: Parts, preconditioned: ReadonlyMap<Layer, tf.Tensor2D>, updates: Updates, scope: Scope) {
  const result = new Map(updates);
  const { klClip } = parts.settings;
  let factor: tf.Tensor | undefined;
  if (klClip) {
    const predicted = predictedChange(parts, preconditioned, updates, scope);
    factor = tf.minimum(1, tf.sqrt(tf.div(klClip(scope.clock), tf.maximum(predicted, SMALLEST))));
  }
  for (const [layer, matrix] of preconditioned) {
    const scaled = factor ? tf.mul(matrix, factor) : matrix;
    for (const [name, update] of updatesOf(layer, scaled as tf.Tensor2D))
      if (updates.has(name)) result.set(name, update);
  }
  return result;
}

/** One step of K-FAC: the new updates, which are the caller's. */
export function* advance(parts: Parts, updates: Updates, scope: Scope, team?: Team): Waiting<Map<string, tf.Tensor>> {
  const damping = parts.damping(scope.clock);
  yield* refresh(parts, scope, damping, team);
  if (parts.counts.now().installed === 0) return new Map(updates);
  const preconditioned = yield* precondition(parts, updates, damping, team);
  if (preconditioned.size === 0) return new Map(updates);
  const started = performance.now();
  const result = tf.tidy(() => Object.fromEntries(clipped(parts, preconditioned, updates, scope)));
  tf.dispose([...preconditioned.values()]);
  parts.clockwork.add('precondition', started);
  return new Map(Object.entries(result));
}
