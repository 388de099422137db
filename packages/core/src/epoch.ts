import { saveCheckpoint, variablesOf, type Cursor } from './checkpoint.js';
import { oneStep } from './backpropagation.js';
import { batchCount, batches } from './data.js';
import { FrugalError } from './errors.js';
import { evaluate } from './evaluate.js';
import type { ProgressEvent } from './progress.js';
import { clockAt } from './schedule.js';
import { openScope } from './scope.js';
import { cursorAt, type Run, type Sums } from './run.js';
import type { StepReport } from './step.js';

/** Writes a checkpoint, if the run has a folder for it. */
export async function save(run: Run, cursor: Cursor): Promise<void> {
  const { checkpoint } = run.options;
  if (checkpoint) await saveCheckpoint(checkpoint, variablesOf(run.model, run.links), cursor, run.history);
}

/** The error of a run that its signal stopped. */
export function aborted(run: Run, step: number): FrugalError {
  const saved = run.options.checkpoint ? ` The state is saved in ${run.options.checkpoint.folder}.` : '';
  return new FrugalError('ABORTED', `${run.title}: stopped at step ${step} by its signal.${saved}`, {
    cause: run.options.signal?.reason,
  });
}

/** An epoch as it goes: where it is and what it has summed up. */
class EpochTally {
  private readonly sums: Sums & { lossSum: number; correct: number; seconds: number };
  private readonly count: number;
  private seen: number;
  private done: number;
  private started = performance.now();
  step: number;

  constructor(
    private readonly run: Run,
    private readonly start: Cursor,
  ) {
    const { batchSize } = run.options;
    this.sums = { lossSum: start.lossSum, correct: start.correct, seconds: start.seconds };
    this.count = batchCount(run.data, { batchSize });
    this.done = start.batch;
    this.seen = Math.min(start.batch * batchSize, run.data.length);
    this.step = start.step;
  }

  /** Is the epoch at its last batch? */
  get full(): boolean {
    return this.done === this.count;
  }

  add({ loss, correct = 0 }: StepReport, examples: number): void {
    this.sums.lossSum += loss * examples;
    this.sums.correct += correct;
    this.sums.seconds += (performance.now() - this.started) / 1000;
    this.seen += examples;
    this.step++;
    this.done++;
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

  cursor(): Cursor {
    return cursorAt(this.run, this.start.epoch, this.done, this.step, this.sums);
  }

  event(): Omit<ProgressEvent, 'kind'> {
    return {
      epoch: this.start.epoch + 1,
      epochs: this.run.options.epochs,
      batch: this.done,
      batches: this.count,
      seconds: this.sums.seconds,
      loss: this.sums.lossSum / this.seen,
      ...(this.run.loss.logits && { accuracy: this.sums.correct / this.seen }),
    };
  }
}

/** The turn of signals, timers and the terminal. */
const breathe = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function finish(run: Run, tally: EpochTally): void {
  const last = openScope(clockAt(Math.max(0, tally.step - 1), run.totalSteps), run.options.seed);
  const hyperparameters = run.links.hyperparameters(last);
  const { validation: data } = run.options;
  const validation = data && evaluate(run.model, data, { loss: run.loss });
  const event = { ...tally.event(), ...(validation && { validation }) };
  run.progress({ kind: 'epoch', ...event });
  const { epoch, loss, accuracy, seconds } = event;
  run.history.push({
    epoch,
    loss,
    ...(accuracy !== undefined && { accuracy }),
    ...(validation && { validation }),
    seconds,
    hyperparameters,
  });
}

/** Trains one epoch from `start` on and returns the cursor at the start of the next. */
export async function oneEpoch(run: Run, start: Cursor): Promise<Cursor> {
  const { batchSize, seed, signal, communicator } = run.options;
  const tally = new EpochTally(run, start);
  const shuffle = { seed, epoch: start.epoch };
  for (const batch of batches(run.data, { batchSize, shuffle, skip: start.batch })) {
    const clock = clockAt(tally.step, run.totalSteps);
    const scope = run.attachment.begin(clock, { seed, rank: communicator?.rank ?? 0, logits: run.loss.logits });
    tally.add(await oneStep(run, batch, scope), batch.xs.shape[0] as number);
    run.progress({ kind: 'step', ...tally.event() });
    if (tally.step % 16 === 0) await breathe();
    if (tally.due || signal?.aborted) await save(run, tally.cursor());
    if (signal?.aborted) throw aborted(run, tally.step);
    tally.restartClock();
  }
  finish(run, tally);
  return cursorAt(run, start.epoch + 1, 0, tally.step, { lossSum: 0, correct: 0, seconds: 0 });
}
