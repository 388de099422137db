import * as tf from '@tensorflow/tfjs';
import type { Chain } from './chain.js';
import { FrugalError } from './errors.js';
import type { Param } from './link.js';
import { type PassContext, penalised, stepOf } from './run-pass.js';
import type { TrainOptions } from './run.js';
import type { Scope } from './scope.js';
import type { Batch, StepReport } from './step.js';

/** What a step needs of a run. */
export interface StepContext extends PassContext {
  readonly chain: Chain;
  readonly title: string;
  /** Parts that a batch passes through in. */
  readonly accumulate: number;
  /** Does it cost nothing to read a number from the engine? */
  readonly freeReads: boolean;
  readonly options: Pick<TrainOptions, 'checkpoint'>;
}

/** What a step gave: numbers, or what the engine will have computed when somebody asks. */
export interface Outcome {
  readonly loss: number | tf.Scalar;
  readonly correct?: number | tf.Scalar | undefined;
}

/** Loss, correct predictions and gradients by variable name, as a container that `tf.tidy` knows. */
type Passed = { readonly loss: tf.Scalar; readonly correct?: tf.Scalar; readonly gradients: tf.NamedTensorMap };

/** Forward and backward pass over a part of a step, which has this share of its examples. */
function passThrough({ model, attachment, loss }: StepContext, batch: Batch, share: number): Passed {
  let counted: tf.Scalar | undefined;
  const variables = attachment.params.map(({ value }) => value);
  const { value, grads } = tf.variableGrads(() => {
    const outputs = model.apply(batch.xs, { training: true }) as tf.Tensor;
    const result = loss.compute(outputs, batch.ys);
    // The tape's own tidy would dispose it with the other intermediates.
    counted = result.correct && tf.keep(result.correct);
    const whole = penalised(model, result.loss);
    return share === 1 ? whole : tf.mul(whole, share);
  }, variables);
  const correct = counted?.clone() as tf.Scalar | undefined;
  counted?.dispose();
  return { loss: value, gradients: grads, ...(correct && { correct }) };
}

function sumOf(a: Passed, b: Passed): Passed {
  const gradients = { ...a.gradients };
  for (const [name, gradient] of Object.entries(b.gradients))
    gradients[name] = gradients[name] ? tf.add(gradients[name], gradient) : gradient;
  const correct = a.correct && b.correct && tf.add<tf.Scalar>(a.correct, b.correct);
  return { loss: tf.add(a.loss, b.loss), gradients, ...(correct && { correct }) };
}

/** The batch in parts, one after the other, with the gradients of the whole. */
function passThroughParts(run: StepContext, { xs, ys }: Batch): Passed {
  const examples = xs.shape[0] as number;
  const parts = Math.min(run.accumulate, examples);
  if (parts <= 1) return passThrough(run, { xs, ys }, 1);
  let sum: Passed | undefined;
  for (let part = 0; part < parts; part++) {
    const [from, to] = [part, part + 1].map((p) => Math.floor((p * examples) / parts)) as [number, number];
    if (part > 0) run.attachment.nextPart(part);
    const before = sum;
    sum = tf.tidy(() => {
      const own = { xs: tf.slice(xs, from, to - from), ys: tf.slice(ys, from, to - from) };
      const passed = passThrough(run, own, (to - from) / examples);
      return before ? sumOf(before, passed) : passed;
    });
    if (before) tf.dispose(before as unknown as tf.TensorContainer);
  }
  return sum as Passed;
}

function gradientsByName(params: readonly Param[], gradients: tf.NamedTensorMap): Map<string, tf.Tensor> {
  return new Map(
    params.flatMap(({ name, value }) => {
      const gradient = gradients[value.name];
      return gradient ? [[name, gradient] as const] : [];
    }),
  );
}

const nonFiniteWeight = (run: StepContext): string | undefined =>
  run.attachment.params.find(({ value }) => !value.dataSync().every(Number.isFinite))?.name;

/** After the last update there is no loss to tell that it diverged: looks at the weights. Throws `NON_FINITE`. */
export function checkFinite(run: StepContext, step: number): void {
  const culprit = nonFiniteWeight(run);
  if (culprit === undefined) return;
  throw new FrugalError(
    'NON_FINITE',
    `${run.title}: after the last step, ${step - 1}, the weight ${culprit} is not finite. Lower the learning rate, or clip the gradient.`,
  );
}

/** The error of a loss that is not finite. */
export function nonFinite(run: StepContext, step: number, loss: number): FrugalError {
  const culprit = nonFiniteWeight(run);
  const where = culprit === undefined ? 'all weights are still finite' : `the first non-finite weight is ${culprit}`;
  const kept = run.options.checkpoint ? `The last checkpoint in ${run.options.checkpoint.folder} is kept. ` : '';
  return new FrugalError(
    'NON_FINITE',
    `${run.title}: the loss is ${loss} at step ${step}; ${where}. ${kept}Lower the learning rate, or clip the gradient.`,
  );
}

/** Reads loss and count where that is free, and checks the loss before any weight moves. */
function readNow(run: StepContext, { loss, correct }: Passed, step: number): Outcome | undefined {
  if (!run.freeReads) return undefined;
  const value = loss.dataSync()[0] as number;
  if (!Number.isFinite(value)) throw nonFinite(run, step, value);
  return { loss: value, correct: correct?.dataSync()[0] };
}

const statesOf = ({ chain, attachment }: StepContext): (tf.Variable | Float64Array)[] => [
  ...chain.state().values(),
  ...attachment.opened.state().values(),
];

/** All that a step may change on the engine. */
function changing(run: StepContext): tf.Variable[] {
  const { params, statistics } = run.attachment.context;
  const weights = [...params, ...statistics].map(({ value }) => value);
  return [...weights, ...statesOf(run).filter((kept): kept is tf.Variable => kept instanceof tf.Variable)];
}

/**
 * Copies the numbers that links and methods keep on the host, where a loss is read after the update; the function that is returned
 * takes back what has changed since.
 */
export function holdHost(run: StepContext): () => void {
  const arrays = (run.freeReads ? [] : statesOf(run)).filter((kept) => kept instanceof Float64Array);
  const before = arrays.map((array) => [array, array.slice()] as const);
  return () => {
    for (const [array, old] of before) array.set(old);
  };
}

/** Holds what a step may change; for engines where the loss is not read before the update. */
interface Guard {
  /** Takes back what has changed. */
  undo(): void;
  /** Takes back what has changed if the loss is not finite, without asking the engine. */
  settle(loss: tf.Scalar): void;
  /** Lets go. */
  release(): void;
}

const NO_GUARD: Guard = { undo: () => undefined, settle: () => undefined, release: () => undefined };

function openGuard(run: StepContext): Guard {
  if (run.freeReads) return NO_GUARD;
  const before = changing(run).map((variable) => [variable, tf.keep(variable.clone())] as const);
  const undoHost = holdHost(run);
  return {
    undo() {
      for (const [variable, old] of before) variable.assign(old);
      undoHost();
    },
    settle(loss) {
      tf.tidy(() => {
        const finite = tf.isFinite(loss);
        for (const [variable, old] of before) variable.assign(tf.where(finite, variable, old));
      });
    },
    release() {
      for (const [, old] of before) old.dispose();
    },
  };
}

/** The error of a step whose links have thrown: a loss that is not finite is why, where nobody had read it before. */
function failed(run: StepContext, guard: Guard, loss: tf.Scalar, step: number, error: unknown): unknown {
  guard.undo();
  const value = loss.dataSync()[0] as number;
  return Number.isFinite(value) ? error : nonFinite(run, step, value);
}

/** One step by back-propagation, without exchange: everything inside one tidy. */
function localStep(run: StepContext, batch: Batch, scope: Scope): Outcome {
  const guard = openGuard(run);
  let outcome: Outcome | undefined;
  try {
    const left = tf.tidy(() => {
      const passed = passThroughParts(run, batch);
      outcome = readNow(run, passed, scope.clock.step);
      try {
        run.chain.apply(gradientsByName(run.attachment.params, passed.gradients), scope);
      } catch (error) {
        throw failed(run, guard, passed.loss, scope.clock.step, error);
      }
      guard.settle(passed.loss);
      return outcome ? {} : { loss: passed.loss, ...(passed.correct && { correct: passed.correct }) };
    });
    return outcome ?? (left as Outcome);
  } finally {
    guard.release();
  }
}

/** One step by back-propagation whose updates are awaited from other ranks. */
async function exchangeStep(run: StepContext, batch: Batch, scope: Scope): Promise<Outcome> {
  const guard = openGuard(run);
  let outcome: Outcome | undefined;
  let passed: Passed | undefined;
  try {
    passed = tf.tidy(() => {
      const found = passThroughParts(run, batch);
      outcome = readNow(run, found, scope.clock.step);
      return found;
    });
    const { loss, correct, gradients } = passed;
    try {
      await run.chain.applyAsync(gradientsByName(run.attachment.params, gradients), scope);
    } catch (error) {
      throw failed(run, guard, loss, scope.clock.step, error);
    }
    guard.settle(loss);
    if (!outcome) return { loss, correct };
    tf.dispose([loss, ...(correct ? [correct] : [])]);
    return outcome;
  } catch (error) {
    tf.dispose(passed as unknown as tf.TensorContainer);
    throw error;
  } finally {
    guard.release();
  }
}

/** The step itself: by the method that replaces it if there is one, or by back-propagation. */
async function bareStep(run: StepContext, batch: Batch, scope: Scope): Promise<Outcome> {
  const whole = [...run.attachment.opened.methods.values()].find(({ step }) => step)?.step;
  if (whole) {
    const report = await whole.step(stepOf(run, batch, scope));
    run.chain.moved(scope);
    return report;
  }
  return run.chain.exchange === undefined ? localStep(run, batch, scope) : exchangeStep(run, batch, scope);
}

/** One step with the passes of probes around it. */
export async function oneStep(run: StepContext, batch: Batch, scope: Scope): Promise<Outcome> {
  const probes = [...run.attachment.opened.methods.values()].flatMap((method) => method.probes ?? []);
  if (probes.length === 0) return bareStep(run, batch, scope);
  const step = stepOf(run, batch, scope);
  for (const probe of probes) probe.before?.(step);
  const outcome = await bareStep(run, batch, scope);
  for (const probe of probes) probe.after?.(step);
  return outcome;
}

/** The numbers of some steps: one read from the engine, which disposes what they were. */
export async function readOutcomes(outcomes: readonly Outcome[]): Promise<StepReport[]> {
  const tensors = outcomes.flatMap(({ loss, correct }) => [loss, correct]).filter((x) => x instanceof tf.Tensor);
  if (tensors.length === 0) return outcomes as StepReport[];
  const stacked = tf.stack(tensors);
  tf.dispose(tensors);
  const values = await stacked.data();
  stacked.dispose();
  let next = 0;
  const numberOf = (x: number | tf.Tensor | undefined): number | undefined =>
    x instanceof tf.Tensor ? values[next++] : x;
  return outcomes.map(({ loss, correct }) => {
    const report = { loss: numberOf(loss) as number };
    const count = numberOf(correct);
    return count === undefined ? report : { ...report, correct: count };
  });
}
