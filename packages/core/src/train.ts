import { accessSync, constants, mkdirSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs';
import { attach } from './attach.js';
import { chain, linksOf } from './chain.js';
import { checkInteger, checkOptions } from './check.js';
import { type CheckpointOptions, type Cursor, loadCheckpoint, variablesOf } from './checkpoint.js';
import { batchCount, checkDataset, type Dataset } from './data.js';
import { activeEngine } from './engine/ladder.js';
import { checkFinite } from './backpropagation.js';
import { aborted, oneEpoch, save } from './epoch.js';
import { FrugalError } from './errors.js';
import { defaultLoss } from './evaluate.js';
import { checkLoss } from './loss.js';
import { autoProgress } from './progress.js';
import { cursorAt, type EpochReport, type Run, type TrainOptions, type TrainReport } from './run.js';

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

function prepare(model: tf.LayersModel, data: Dataset, options: TrainOptions): Run {
  checkOptions('train', options, KNOWN);
  checkInteger('train', 'epochs', options.epochs, { min: 1 });
  const batchSize = checkInteger('train', 'batchSize', options.batchSize ?? 64, { min: 1 });
  const seed = checkInteger('train', 'seed', options.seed ?? 0);
  const methods = options.methods ?? [];
  checkDataset(data);
  if (options.validation) checkDataset(options.validation);
  if (options.checkpoint) checkCheckpoint(options.checkpoint);
  const loss = options.loss ?? defaultLoss(data);
  checkLoss(model, loss);
  const links = chain(linksOf(methods, options.optimizer));
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

function checkCheckpoint(checkpoint: CheckpointOptions): void {
  checkOptions('checkpoint', checkpoint, ['folder', 'everySteps', 'keep', 'resume']);
  if (checkpoint.everySteps !== undefined) checkInteger('checkpoint', 'everySteps', checkpoint.everySteps, { min: 1 });
  checkInteger('checkpoint', 'keep', checkpoint.keep ?? 2, { min: 1 });
  try {
    mkdirSync(checkpoint.folder, { recursive: true });
    accessSync(checkpoint.folder, constants.W_OK);
  } catch (cause) {
    throw new FrugalError(
      'CHECKPOINT',
      `The checkpoint folder ${checkpoint.folder} cannot be written: ${(cause as Error).message}.`,
      { cause },
    );
  }
}

async function resume(run: Run): Promise<Cursor> {
  const fresh = cursorAt(run, 0, 0, 0, { lossSum: 0, correct: 0, seconds: 0 });
  const { checkpoint } = run.options;
  if (!checkpoint || checkpoint.resume === false) return fresh;
  const found = await loadCheckpoint<EpochReport[]>(checkpoint.folder, variablesOf(run.model, run.links), (line) =>
    process.stderr.write(`${line}\n`),
  );
  if (!found) return fresh;
  for (const key of ['seed', 'batchSize', 'examples', 'epochs'] as const) {
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
 * checkpoint and resume. A loss that is not finite stops the run before the
 * optimizer moves any weight.
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
    if (options.signal?.aborted) throw aborted(run, cursor.step);
    while (cursor.epoch < options.epochs) {
      cursor = await oneEpoch(run, cursor);
      await save(run, cursor);
    }
    checkFinite(run, cursor.step);
    return {
      title: run.title,
      data: { name: data.name, origin: data.origin },
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
