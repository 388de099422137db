import * as tf from '@tensorflow/tfjs';
import { attach, type Attachment, type SiteReport, type Uncovered } from './attach.js';
import { type Chain, chain } from './chain.js';
import { checkInteger, checkOptions } from './check.js';
import { type CheckpointOptions, type Cursor, loadCheckpoint, saveCheckpoint, variablesOf } from './checkpoint.js';
import { batchCount, batches, checkDataset, type Dataset } from './data.js';
import { activeEngine } from './engine/ladder.js';
import { FrugalError } from './errors.js';
import { defaultLoss, evaluate, type Evaluation } from './evaluate.js';
import { checkLoss, type Loss } from './loss.js';
import type { Method } from './method.js';
import { autoProgress, type Progress } from './progress.js';
import { clockAt } from './schedule.js';
import type { Scope } from './scope.js';
import type { Batch, StepReport } from './step.js';
import type { Communicator, Transform } from './transform.js';

/** How `train` trains. */
export interface TrainOptions {
  /** The links between dW and W; the last is usually `sgd` or `adam`. */
  readonly optimizer: Transform | readonly Transform[];
  /** What the papers plug in. Default none: exact training. */
  readonly methods?: readonly Method[];
  /** Passes over the data. */
  readonly epochs: number;
  /** Examples per step. Default 64. */
  readonly batchSize?: number;
  /** Seed of order, dropout and sampling. Default 0. */
  readonly seed?: number;
  /** Evaluated after each epoch, outside the measured time. */
  readonly validation?: Dataset;
  /** Default: cross-entropy for classes, mean squared error for vectors. */
  readonly loss?: Loss;
  /** Receives progress; `false` for none. Default: a bar on a terminal, JSON lines elsewhere. */
  readonly progress?: Progress | false;
  /** Title of the run in progress and errors. Default: the names of the methods, or `exact`. */
  readonly title?: string;
  /** Stops the run after the current step, with a checkpoint if there is a folder for it. */
  readonly signal?: AbortSignal;
  /** Write checkpoints, and go on from the newest one. */
  readonly checkpoint?: CheckpointOptions;
  /** Other ranks, for exchange links. */
  readonly communicator?: Communicator;
}

/** One epoch of a run. */
export interface EpochReport {
  /** Epoch, from 1. */
  readonly epoch: number;
  /** Mean training loss. */
  readonly loss: number;
  /** Training accuracy while the weights moved, for classification. */
  readonly accuracy?: number;
  /** Loss and accuracy on the validation set. */
  readonly validation?: Evaluation;
  /** Seconds of training, without validation and checkpoints. */
  readonly seconds: number;
  /** Values of the hyper-parameters in the last step. */
  readonly hyperparameters: Readonly<Record<string, number>>;
}

/** What a run did. */
export interface TrainReport {
  /** Title of the run. */
  readonly title: string;
  /** Every epoch, also those before a resume. */
  readonly epochs: readonly EpochReport[];
  /** Optimizer steps of the whole run. */
  readonly steps: number;
  /** Seconds of training. */
  readonly seconds: number;
  /** Multiply-adds per site, of the steps made by this call. */
  readonly sites: readonly SiteReport[];
  /** Trainable weights that no method could reach. */
  readonly uncovered: readonly Uncovered[];
  /** The engine, in words. */
  readonly engine: string;
  /** Kernels that ran in plain JavaScript during training, by name, with the number of calls. */
  readonly fallbacks: Readonly<Record<string, number>>;
}

const KNOWN = [
  'optimizer',
  'methods',
  'epochs',
  'batchSize',
  'seed',
  'validation',
  'loss',
  'progress',
  'title',
  'signal',
  'checkpoint',
  'communicator',
];

/** One run of `train`: the parts that its steps share. */
interface Run {
  readonly model: tf.LayersModel;
  readonly data: Dataset;
  readonly attachment: Attachment;
  readonly links: Chain;
  readonly loss: Loss;
  readonly options: TrainOptions & { readonly batchSize: number; readonly seed: number };
  readonly title: string;
  readonly totalSteps: number;
  readonly progress: Progress;
  readonly history: EpochReport[];
}

interface Forward {
  readonly gradients: Map<string, tf.Tensor>;
  readonly report: StepReport;
}

/** Forward and backward pass. Checks the loss before any weight moves. */
function backpropagate(run: Run, batch: Batch, step: number): Forward {
  const { model, attachment, loss } = run;
  let correct: number | undefined;
  const variables = attachment.params.map(({ value }) => value);
  const { value, grads } = tf.variableGrads(() => {
    const outputs = model.apply(batch.xs, { training: true }) as tf.Tensor;
    const result = loss.compute(outputs, batch.ys);
    // Read here: the tape's own tidy disposes it with the other intermediates.
    correct = result.correct?.dataSync()[0];
    return result.loss;
  }, variables);
  const number = value.dataSync()[0] as number;
  if (!Number.isFinite(number)) throw nonFinite(run, step, number);
  const report = { loss: number, ...(correct !== undefined && { correct }) };
  return { gradients: new Map(Object.entries(grads)), report };
}

function nonFinite(run: Run, step: number, loss: number): FrugalError {
  const culprit = run.attachment.params.find(({ value }) => !value.dataSync().every(Number.isFinite))?.name;
  const where = culprit === undefined ? 'all weights are still finite' : `the first non-finite weight is ${culprit}`;
  const kept = run.options.checkpoint ? `The last checkpoint in ${run.options.checkpoint.folder} is kept. ` : '';
  return new FrugalError(
    'NON_FINITE',
    `${run.title}: the loss is ${loss} at step ${step}; ${where}. ${kept}Lower the learning rate, or clip the gradient.`,
  );
}

/** One step by back-propagation, without exchange: everything inside one tidy. */
function localStep(run: Run, batch: Batch, scope: Scope): StepReport {
  let report: StepReport = { loss: Number.NaN };
  tf.tidy(() => {
    const forward = backpropagate(run, batch, scope.clock.step);
    run.links.apply(forward.gradients, run.attachment.params, scope);
    report = forward.report;
  });
  return report;
}

/** One step by back-propagation whose updates are awaited from other ranks. */
async function exchangeStep(run: Run, batch: Batch, scope: Scope, communicator: Communicator): Promise<StepReport> {
  let report: StepReport = { loss: Number.NaN };
  const gradients = tf.tidy(() => {
    const forward = backpropagate(run, batch, scope.clock.step);
    report = forward.report;
    return Object.fromEntries(forward.gradients);
  });
  await run.links.applyAsync(new Map(Object.entries(gradients)), run.attachment.params, scope, communicator);
  return report;
}

async function oneStep(run: Run, batch: Batch, scope: Scope): Promise<StepReport> {
  const whole = run.attachment.methods.find((method) => method.step)?.step;
  if (whole) return whole.step(batch, run.attachment.params, scope);
  const { communicator } = run.options;
  if (run.links.exchange !== undefined && communicator) return exchangeStep(run, batch, scope, communicator);
  return localStep(run, batch, scope);
}

const cursorAt = (run: Run, epoch: number, batch: number, step: number, sums: Sums): Cursor => {
  const { seed, batchSize, epochs } = run.options;
  return { step, epoch, batch, seed, batchSize, epochs, ...sums };
};

interface Sums {
  lossSum: number;
  correct: number;
  seconds: number;
}

const save = (run: Run, cursor: Cursor): Promise<unknown> | undefined =>
  run.options.checkpoint &&
  saveCheckpoint(run.options.checkpoint, variablesOf(run.model, run.links), cursor, run.history);

function aborted(run: Run, step: number): FrugalError {
  const saved = run.options.checkpoint ? ` The state is saved in ${run.options.checkpoint.folder}.` : '';
  return new FrugalError('ABORTED', `${run.title}: stopped at step ${step} by its signal.${saved}`, {
    cause: run.options.signal?.reason,
  });
}

/** Trains one epoch from `cursor` on and returns the cursor at the start of the next. */
async function oneEpoch(run: Run, cursor: Cursor): Promise<Cursor> {
  const { data, options, totalSteps, attachment } = run;
  const { batchSize, seed, epochs, signal, checkpoint } = options;
  const count = batchCount(data, { batchSize });
  const sums: Sums = { lossSum: cursor.lossSum, correct: cursor.correct, seconds: cursor.seconds };
  let { step, batch: done } = cursor;
  let seen = Math.min(done * batchSize, data.length);
  let hyperparameters: Record<string, number> = {};
  let started = performance.now();
  const rank = options.communicator?.rank ?? 0;
  const event = () => ({
    epoch: cursor.epoch + 1,
    epochs,
    batch: done,
    batches: count,
    seconds: sums.seconds,
    loss: sums.lossSum / seen,
    ...(run.loss.logits && { accuracy: sums.correct / seen }),
  });
  for (const batch of batches(data, { batchSize, shuffle: { seed, epoch: cursor.epoch }, skip: done })) {
    const scope = attachment.begin(clockAt(step, totalSteps), { seed, rank, logits: run.loss.logits });
    const { loss, correct = 0 } = await oneStep(run, batch, scope);
    const examples = batch.xs.shape[0] as number;
    sums.lossSum += loss * examples;
    sums.correct += correct;
    seen += examples;
    step++;
    done++;
    if (done === count) hyperparameters = run.links.hyperparameters(scope);
    sums.seconds += (performance.now() - started) / 1000;
    run.progress({ kind: 'step', ...event() });
    // Lets signals, timers and the terminal have their turn.
    if (done % 16 === 0) await new Promise<void>((resolve) => setImmediate(resolve));
    const due = checkpoint?.everySteps !== undefined && step % checkpoint.everySteps === 0 && done < count;
    if (due || signal?.aborted) await save(run, cursorAt(run, cursor.epoch, done, step, sums));
    if (signal?.aborted) throw aborted(run, step);
    started = performance.now();
  }
  const validation = options.validation && evaluate(run.model, options.validation, { loss: run.loss });
  const summary = { ...event(), ...(validation && { validation }) };
  run.progress({ kind: 'epoch', ...summary });
  const { loss, accuracy, seconds } = summary;
  run.history.push({
    epoch: cursor.epoch + 1,
    loss,
    ...(accuracy !== undefined && { accuracy }),
    ...(validation && { validation }),
    seconds,
    hyperparameters,
  });
  return cursorAt(run, cursor.epoch + 1, 0, step, { lossSum: 0, correct: 0, seconds: 0 });
}

function prepare(model: tf.LayersModel, data: Dataset, options: TrainOptions): Run {
  checkOptions('train', options, KNOWN);
  checkInteger('train', 'epochs', options.epochs, { min: 1 });
  const batchSize = checkInteger('train', 'batchSize', options.batchSize ?? 64, { min: 1 });
  const seed = checkInteger('train', 'seed', options.seed ?? 0);
  const methods = options.methods ?? [];
  checkDataset(data);
  const loss = options.loss ?? defaultLoss(data);
  checkLoss(model, loss);
  const links = chain([...methods.flatMap((method) => method.transforms ?? []), ...[options.optimizer].flat()]);
  if (links.exchange !== undefined && !options.communicator) {
    throw new FrugalError('CONFIG', `${links.exchange} exchanges tensors with other ranks: pass { communicator }.`);
  }
  const title = options.title ?? (methods.map((method) => method.name).join(' + ') || 'exact');
  return {
    model,
    data,
    attachment: attach(model, ...methods),
    links,
    loss,
    options: { ...options, batchSize, seed },
    title,
    totalSteps: options.epochs * batchCount(data, { batchSize }),
    progress: options.progress === false ? () => undefined : (options.progress ?? autoProgress(title)),
    history: [],
  };
}

async function resume(run: Run): Promise<Cursor> {
  const fresh = cursorAt(run, 0, 0, 0, { lossSum: 0, correct: 0, seconds: 0 });
  const { checkpoint } = run.options;
  if (!checkpoint || checkpoint.resume === false) return fresh;
  const found = await loadCheckpoint<EpochReport[]>(checkpoint.folder, variablesOf(run.model, run.links), (line) =>
    process.stderr.write(`${line}\n`),
  );
  if (!found) return fresh;
  for (const key of ['seed', 'batchSize', 'epochs'] as const) {
    if (found.cursor[key] !== fresh[key]) {
      throw new FrugalError(
        'CHECKPOINT',
        `The checkpoint in ${checkpoint.folder} was made with ${key} ${found.cursor[key]}, this run has ${fresh[key]}: it could not go on with the same bits. Use another folder, or the old ${key}.`,
      );
    }
  }
  run.history.push(...found.history);
  return found.cursor;
}

/**
 * Trains a model and tells what it did. Seeded: the same seed on the same engine gives the same bits, also across a
 * checkpoint and resume. A loss that is not finite stops the run before any weight moves.
 *
 * @param model - any built `tf.LayersModel` of one output; its weights are changed, its layers are given back as they were
 * @param data - the training set
 * @throws {@link FrugalError} `CONFIG`, `CONFLICT`, `DATA`, `CHECKPOINT`, `NON_FINITE`, `ABORTED`
 * @example
 * ```ts
 * const report = await train(lenet(), data.train, {
 *   methods: [topK({ keep: 0.5 })],
 *   optimizer: sgd({ learningRate: 0.05, momentum: demon({ initial: 0.9 }) }),
 *   epochs: 5, validation: data.test, seed: 1,
 * });
 * ```
 */
export async function train(model: tf.LayersModel, data: Dataset, options: TrainOptions): Promise<TrainReport> {
  const run = prepare(model, data, options);
  const engine = activeEngine();
  engine?.resetCounters();
  try {
    run.links.init(run.attachment.params);
    let cursor = await resume(run);
    while (cursor.epoch < options.epochs) {
      cursor = await oneEpoch(run, cursor);
      await save(run, cursor);
    }
    return {
      title: run.title,
      epochs: run.history,
      steps: cursor.step,
      seconds: run.history.reduce((sum, { seconds }) => sum + seconds, 0),
      sites: run.attachment.report(),
      uncovered: run.attachment.uncovered,
      engine: engine?.detail ?? tf.getBackend(),
      fallbacks: engine?.counters().fallbacks ?? {},
    };
  } finally {
    run.attachment.detach();
    run.links.dispose();
  }
}
