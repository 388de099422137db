import { accessSync, constants, mkdirSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs';
import { checkChoice, checkInteger, checkOptions } from './check.js';
import { type CheckpointOptions, type Cursor, keptOf } from './checkpoint.js';
import { oneRank } from './communicator.js';
import { loadCheckpoint } from './checkpoint-load.js';
import { batchCount, checkDataset, type Dataset } from './data.js';
import { readsAreFree } from './engine/contract.js';
import type { Engine } from './engine/engine.js';
import { activeEngine } from './engine/ladder.js';
import { checkFinite } from './backpropagation.js';
import { aborted, oneEpoch } from './epoch.js';
import { FrugalError } from './errors.js';
import { defaultLoss } from './evaluate.js';
import { checkLoss } from './loss.js';
import { noReport } from './open-methods.js';
import { type OpenedRun, openRun, prepareAll } from './open-run.js';
import type { Reporting } from './opened.js';
import { autoProgress } from './progress.js';
import { agree, shareWeights } from './ranks.js';
import { settle } from './settled.js';
import { cursorAt, type EpochReport, NOTHING, type Run, type TrainOptions, type TrainReport } from './run.js';

const KNOWN = [
  'optimizer',
  'methods',
  'epochs',
  'batchSize',
  'accumulate',
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

/** What a run needs before its chain is open. */
type Begun = Omit<Run, 'chain'> & OpenedRun;

/** Refuses bad options, and attaches the model. */
function begin(model: tf.LayersModel, data: Dataset, options: TrainOptions): Begun {
  checkOptions('train', options, KNOWN);
  checkInteger('train', 'epochs', options.epochs, { min: 1 });
  const batchSize = checkInteger('train', 'batchSize', options.batchSize ?? 64, { min: 1 });
  const seed = checkInteger('train', 'seed', options.seed ?? 0);
  const accumulate = checkInteger('train', 'accumulate', options.accumulate ?? 1, { min: 1 });
  const { methods = [], communicator, optimizer } = options;
  checkDataset(data);
  if (options.validation) checkDataset(options.validation);
  if (options.checkpoint) checkCheckpoint(options.checkpoint);
  const loss = options.loss ?? defaultLoss(data);
  checkLoss(model, loss);
  const division = checkChoice('train', 'division', options.division ?? 'batch', ['batch', 'data']);
  const first = (communicator?.rank ?? 0) === 0;
  const title = options.title ?? (methods.map((method) => method.name).join(' + ') || 'exact');
  return {
    ...openRun('train', model, { methods, optimizer, communicator }),
    model,
    data,
    loss,
    accumulate,
    freeReads: readsAreFree(tf.getBackend()),
    options: { ...options, batchSize, seed },
    title,
    totalSteps: options.epochs * batchCount(data, { batchSize }),
    everyone: communicator ?? oneRank,
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
async function meet({ model, data, options, links, ranks, division, accumulate }: Begun): Promise<void> {
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
    'number of links': links.length,
    accumulate,
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
    keptOf(run),
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
  const begun = begin(model, data, options);
  const engine = activeEngine();
  engine?.resetCounters();
  let chain: Run['chain'] | undefined;
  try {
    await meet(begun);
    chain = begun.openChain();
    await prepareAll(begun.attachment, chain);
    const run: Run = { ...begun, chain };
    const steps = await allEpochs(run);
    settle(run.attachment.context, chain.settled());
    return reportOf(run, steps, engine);
  } finally {
    begun.attachment.detach();
    chain?.dispose();
  }
}

/** Trains from the newest checkpoint, or from the start, to the end; returns the number of steps. */
async function allEpochs(run: Run): Promise<number> {
  let cursor = await resume(run);
  // With other ranks, the first step asks them all.
  if (run.options.signal?.aborted && run.ranks.size === 1) throw aborted(run, cursor.step);
  while (cursor.epoch < run.options.epochs) cursor = await oneEpoch(run, cursor);
  checkFinite(run, cursor.step);
  return cursor.step;
}

function reportOf(run: Run, steps: number, engine: Engine | undefined): TrainReport {
  const { attachment, data, title, history } = run;
  const { opened } = attachment.context;
  // Asked for now: the run ends with its state.
  const reports = new Map([...opened].flatMap(([of, { report }]) => (report ? [[of, report()] as const] : [])));
  return {
    title,
    data: { name: data.name, origin: data.origin },
    epochs: history,
    steps,
    seconds: history.reduce((sum, { seconds }) => sum + seconds, 0),
    sites: attachment.report(),
    uncovered: attachment.uncovered,
    of<Report>(description: Reporting<Report>): Report {
      if (reports.has(description)) return reports.get(description) as Report;
      throw noReport(description);
    },
    engine: engine?.detail ?? tf.getBackend(),
    fallbacks: engine?.counters().fallbacks ?? {},
  };
}
