import { accessSync, constants, mkdirSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs';
import { attach } from './attach.js';
import { chain, linksOf } from './chain.js';
import { checkChoice, checkInteger, checkOptions } from './check.js';
import { type CheckpointOptions, type Cursor, variablesOf } from './checkpoint.js';
import { loadCheckpoint } from './checkpoint-load.js';
import { batchCount, checkDataset, type Dataset } from './data.js';
import { activeEngine } from './engine/ladder.js';
import { checkFinite } from './backpropagation.js';
import { aborted, oneEpoch } from './epoch.js';
import { FrugalError } from './errors.js';
import { defaultLoss } from './evaluate.js';
import { linearAlgebra } from './linalg/linear-algebra.js';
import { checkLoss } from './loss.js';
import { autoProgress } from './progress.js';
import { agree, oneRank, ranksOf, shareWeights } from './ranks.js';
import { cursorAt, type EpochReport, NOTHING, type Run, type TrainOptions, type TrainReport } from './run.js';

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
  'division',
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
  const ranks = ranksOf(links, methods, options.communicator);
  const division = checkChoice('train', 'division', options.division ?? 'batch', ['batch', 'data']);
  const first = (options.communicator?.rank ?? 0) === 0;
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
    ranks,
    everyone: options.communicator ?? oneRank,
    division,
    progress: options.progress || (options.progress === undefined && first ? autoProgress(title) : () => undefined),
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

/** Ranks that divide the work compare what they were told, and start from the weights of rank 0. */
async function begin({ model, data, options, links, ranks, division }: Run): Promise<void> {
  const { batchSize, seed, epochs, checkpoint } = options;
  await agree('train', ranks, {
    division: division === 'batch' ? 0 : 1,
    // Under 'data' they may differ; all ranks gather as many numbers, whatever they were told.
    'number of examples': division === 'batch' ? data.length : 0,
    batchSize: division === 'batch' ? batchSize : 0,
    'number of batches': batchCount(data, { batchSize }),
    epochs,
    seed,
    'number of weights': model.countParams(),
    'number of links': links.links.length,
    'number of examples for validation': options.validation?.length ?? 0,
    'use of a signal': options.signal ? 1 : 0,
    'use of a checkpoint folder': checkpoint ? 1 : 0,
    everySteps: checkpoint?.everySteps ?? 0,
    resume: checkpoint?.resume === false ? 0 : 1,
  });
  await shareWeights(model, ranks);
}

async function resume(run: Run): Promise<Cursor> {
  const fresh = cursorAt(run, 0, 0, 0, NOTHING);
  const { checkpoint } = run.options;
  if (!checkpoint || checkpoint.resume === false) return fresh;
  const found = await loadCheckpoint<EpochReport[]>(
    checkpoint.folder,
    variablesOf(run.model, run.links),
    (line) => process.stderr.write(`${line}\n`),
    run.everyone,
  );
  if (!found) return fresh;
  // Where ranks have data of their own, another number of ranks has other parts: only the number of batches counts.
  const own = run.division === 'data' && run.ranks.size > 1;
  const same = own ? (['seed', 'batches', 'epochs'] as const) : (['seed', 'batchSize', 'examples', 'epochs'] as const);
  for (const key of same) {
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
    await linearAlgebra();
    await begin(run);
    run.links.init(run.attachment.params);
    let cursor = await resume(run);
    // With other ranks, the first step asks them all.
    if (options.signal?.aborted && run.ranks.size === 1) throw aborted(run, cursor.step);
    while (cursor.epoch < options.epochs) {
      cursor = await oneEpoch(run, cursor);
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
