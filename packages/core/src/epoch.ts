import { nonFinite, oneStep, type Outcome, readOutcomes } from './backpropagation.js';
import { type Cursor, keptOf, saveCheckpoint } from './checkpoint.js';
import { batchCount, batches } from './data.js';
import { FrugalError } from './errors.js';
import type { ProgressEvent } from './progress.js';
import { clockAt } from './schedule.js';
import { openScope } from './scope.js';
import { cursorAt, NOTHING, type Run, type Sums } from './run.js';
import type { Batch } from './step.js';
import { validate } from './validate.js';

/** Writes a checkpoint, if the run has a folder for it. */
async function save(run: Run, cursor: Cursor): Promise<void> {
  const { checkpoint } = run.options;
  if (!checkpoint) return;
  await saveCheckpoint(checkpoint, keptOf(run), cursor, run.history, run.everyone);
}

/** The error of a run that its signal stopped. */
export function aborted(run: Run, step: number): FrugalError {
  const saved = run.options.checkpoint ? ` The state is saved in ${run.options.checkpoint.folder}.` : '';
  return new FrugalError('ABORTED', `${run.title}: stopped at step ${step} by its signal.${saved}`, {
    cause: run.options.signal?.reason,
  });
}

/** Sums over all ranks; the seconds are this rank's. */
async function overRanks({ ranks }: Run, { lossSum, correct, seen, seconds }: Sums): Promise<Sums> {
  const sums = Float64Array.of(lossSum, correct, seen);
  await ranks.allReduce(sums);
  return { lossSum: sums[0] as number, correct: sums[1] as number, seen: sums[2] as number, seconds };
}

/** Most steps whose numbers wait on an engine that reads at a cost. */
const UNREAD = 16;

/** An epoch as it goes: where it is and what it has summed up. */
class EpochTally {
  private readonly sums: { -readonly [K in keyof Sums]: Sums[K] };
  private readonly count: number;
  private done: number;
  private started = performance.now();
  private pending: { readonly outcome: Outcome; readonly examples: number; readonly step: number }[] = [];
  step: number;

  constructor(
    private readonly run: Run,
    private readonly start: Cursor,
  ) {
    const { lossSum, correct, seen, seconds } = start;
    // A resumed epoch begins with the sums of all ranks: one of them goes on with them.
    this.sums = run.ranks.rank === 0 ? { lossSum, correct, seen, seconds } : { ...NOTHING, seconds };
    this.count = batchCount(run.data, { batchSize: run.options.batchSize });
    this.done = start.batch;
    this.step = start.step;
  }

  /** Is the epoch at its last batch? */
  get full(): boolean {
    return this.done === this.count;
  }

  /** Adds a step. Its numbers are read now where that is free; elsewhere every so many steps, and when somebody asks. */
  async add(outcome: Outcome, { xs, share }: Batch): Promise<void> {
    const examples = share === 0 ? 0 : (xs.shape[0] as number);
    this.pending.push({ outcome, examples, step: this.step });
    if (this.run.freeReads || this.pending.length >= UNREAD || this.sums.seen === 0) await this.read();
    this.sums.seconds += (performance.now() - this.started) / 1000;
    this.step++;
    this.done++;
  }

  /** Reads what the engine has of the steps so far. Throws `NON_FINITE` for the first loss that is not finite. */
  private async read(): Promise<void> {
    const { pending } = this;
    this.pending = [];
    const reports = await readOutcomes(pending.map(({ outcome }) => outcome));
    for (const [i, { loss, correct = 0 }] of reports.entries()) {
      const { examples, step } = pending[i] as (typeof pending)[number];
      if (!Number.isFinite(loss)) throw nonFinite(this.run, step, loss);
      this.sums.lossSum += loss * examples;
      this.sums.correct += examples > 0 ? correct : 0;
      this.sums.seen += examples;
    }
  }

  /** What is not training (checkpoints, progress) ends here. */
  restartClock(): void {
    this.started = performance.now();
  }

  /** Is a checkpoint due in the middle of the epoch? */
  get due(): boolean {
    const every = this.run.options.checkpoint?.everySteps;
    return every !== undefined && this.step % every === 0 && !this.full;
  }

  /** Writes a checkpoint with the sums of all ranks. */
  async save(): Promise<void> {
    const { run, start, done, step } = this;
    await this.read();
    await save(run, cursorAt(run, start.epoch, done, step, await overRanks(run, this.sums)));
  }

  /** Of this rank, or of the sums given. */
  event({ lossSum, correct, seen, seconds }: Sums = this.sums): Omit<ProgressEvent, 'kind'> {
    // A rank may have had no example yet.
    const examples = Math.max(1, seen);
    return {
      epoch: this.start.epoch + 1,
      epochs: this.run.options.epochs,
      batch: this.done,
      batches: this.count,
      seconds,
      loss: lossSum / examples,
      ...(this.run.loss.logits && { accuracy: correct / examples }),
    };
  }

  /** Of all ranks, at the end of the epoch. */
  async summary(): Promise<Omit<ProgressEvent, 'kind'>> {
    await this.read();
    return this.event(await overRanks(this.run, this.sums));
  }
}

/** The turn of signals, timers and the terminal. */
const breathe = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function finish(run: Run, tally: EpochTally): Promise<void> {
  const last = openScope(clockAt(Math.max(0, tally.step - 1), run.totalSteps), run.options.seed);
  const hyperparameters = run.chain.hyperparameters(last);
  const summary = await tally.summary();
  const { epoch, loss, accuracy, seconds } = summary;
  const evaluations = await validate(run);
  run.progress({ kind: 'epoch', ...summary, ...evaluations });
  run.history.push({
    epoch,
    loss,
    ...(accuracy !== undefined && { accuracy }),
    ...evaluations,
    seconds,
    hyperparameters,
  });
}

/** Asks whether any rank was told to stop; the answer comes while the step computes. */
function askToStop({ options: { signal }, ranks }: Run): () => Promise<boolean> {
  if (!signal) return async () => false;
  if (ranks.size === 1) return async () => signal.aborted;
  const told = Int32Array.of(signal.aborted ? 1 : 0);
  const answer = ranks.allReduce(told, 'max');
  return async () => {
    await answer;
    return told[0] === 1;
  };
}

/** Trains one epoch from `start` on and returns the cursor at the start of the next. */
export async function oneEpoch(run: Run, start: Cursor): Promise<Cursor> {
  const { options, ranks, division } = run;
  const { batchSize, seed, communicator } = options;
  const tally = new EpochTally(run, start);
  const part = division === 'batch' ? { rank: ranks.rank, size: ranks.size } : { rank: 0, size: 1 };
  const walk = { batchSize, shuffle: { seed, epoch: start.epoch }, skip: start.batch, part };
  for (const batch of batches(run.data, walk)) {
    const clock = clockAt(tally.step, run.totalSteps);
    const share = division === 'batch' ? batch.share : 1 / ranks.size;
    const stopped = askToStop(run);
    const scope = run.attachment.begin(clock, {
      seed,
      rank: communicator?.rank ?? 0,
      ...(share !== undefined && { share }),
      logits: run.loss.logits,
    });
    await tally.add(await oneStep(run, batch, scope), batch);
    run.progress({ kind: 'step', ...tally.event() });
    if (tally.step % 16 === 0) await breathe();
    const stop = await stopped();
    if (tally.due || stop) await tally.save();
    if (stop) throw aborted(run, tally.step);
    tally.restartClock();
  }
  await finish(run, tally);
  const next = cursorAt(run, start.epoch + 1, 0, tally.step, NOTHING);
  await save(run, next);
  return next;
}
