import { FrugalError, slice, type UpdateLink } from '@frugal/core';
import { cifar10, resnet20 } from '@frugal/models';
import { kfac, type KfacReport, sgd } from '@frugal/optim';
import { linesChart } from '../lines.js';
import { type Figures, round } from '../results.js';
import { percent } from '../summary.js';
import { falling } from './falling.js';
import { type Course, type Mark, race, type Runner, secondsTo } from './race.js';

const BATCH = 128;
const DECAY = 5e-4;
/** What K-FAC may fall short of SGD's last accuracy. */
const MARGIN = 0.003;
/** What is tried on a part of the data: rates of SGD, and damping of K-FAC, whose step the clip makes as long as it is. */
const TRIALS = { sgd: [0.025, 0.05, 0.1, 0.2], kfac: [3e-4, 1e-3, 3e-3] } as const;
const KFAC_RATE = 0.1;

const optimizerOf = (rate: number): UpdateLink =>
  sgd({ learningRate: falling(rate), momentum: 0.9, weightDecay: DECAY });

const withSgd = (rate: number, epochs: number, key = 'sgd'): Runner => ({
  key,
  title: `SGD with momentum, rate ${rate}, ${epochs} epochs`,
  epochs,
  make: () => ({ optimizer: optimizerOf(rate), methods: [] }),
});

function withKfac(damping: number, epochs: number, tellReport: (report: KfacReport) => void = () => undefined): Runner {
  const method = kfac({ damping, klClip: falling(1e-3) });
  return {
    key: 'kfac',
    title: `K-FAC, damping ${damping}, ${epochs} epochs`,
    epochs,
    make: () => ({ optimizer: optimizerOf(KFAC_RATE), methods: [method] }),
    ended: (run) => tellReport(run.of(method)),
  };
}

const tell = ({ title }: Runner, { epoch, seconds, loss, accuracy }: Mark): void => {
  const line = `epoch ${epoch}, ${seconds.toFixed(0)} s, loss ${loss.toFixed(3)}, accuracy ${percent(accuracy, 2)}`;
  process.stderr.write(`${title}: ${line}\n`);
};

/** Last accuracy of a trial; 0 where training diverged. */
async function tried(course: Course, runner: Runner): Promise<number> {
  try {
    return [...(await race(course, [runner], tell)).values()][0]?.at(-1)?.accuracy ?? 0;
  } catch (error) {
    if (FrugalError.is(error, 'NON_FINITE')) return 0;
    throw error;
  }
}

/** The setting with the best last accuracy on a part of the training data. */
async function tune(course: Course, trials: readonly number[], make: (setting: number) => Runner): Promise<number> {
  let best = { setting: trials[0] as number, accuracy: -1 };
  for (const setting of trials) {
    const accuracy = await tried(course, make(setting));
    if (accuracy > best.accuracy) best = { setting, accuracy };
  }
  return best.setting;
}

/**
 * Epochs, at whose end the rate is zero: of SGD, of K-FAC, and of SGD with about the time that K-FAC has, which shows what a
 * shorter schedule does by itself.
 */
const EPOCHS = {
  quick: { sgd: 10, kfac: 6, short: 7 },
  full: { sgd: 30, kfac: 18, short: 20 },
} as const;
/** On training images: the first ones, and the last ones held out. */
const TUNING = { examples: 20_000, held: 5000, epochs: 4 };

async function data(): Promise<Awaited<ReturnType<typeof cifar10>> | string> {
  try {
    return await cifar10();
  } catch (error) {
    return `no CIFAR-10: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`;
  }
}

/** The figures and rows of a race that is over. */
function summarise(
  marks: ReadonlyMap<string, readonly Mark[]>,
  runners: readonly Runner[],
  figures: Figures,
): string[][] {
  const ofSgd = marks.get('sgd') ?? [];
  const target = (ofSgd.at(-1)?.accuracy ?? 1) - MARGIN;
  const rows = [['ResNet-20 on CIFAR-10', 'accuracy', 'seconds of steps', `seconds to ${percent(target, 2)}`]];
  for (const { key, title } of runners) {
    const of = marks.get(key) ?? [];
    const [last, reached] = [of.at(-1) as Mark, secondsTo(of, target)];
    figures[`cifar.${key}.accuracy`] = round(last.accuracy);
    figures[`cifar.${key}.seconds`] = round(last.seconds, 1);
    rows.push([title, percent(last.accuracy, 2), last.seconds.toFixed(0), reached?.toFixed(0) ?? 'not reached']);
  }
  // SGD may have come to the target before its last epoch.
  const [own, rival] = [secondsTo(marks.get('kfac') ?? [], target), secondsTo(ofSgd, target)];
  if (own !== undefined && rival !== undefined) figures['cifar.time_ratio'] = round(own / rival);
  return rows;
}

function charts(marks: ReadonlyMap<string, readonly Mark[]>, runners: readonly Runner[]) {
  const lines = (x: (mark: Mark) => number, y: (mark: Mark) => number) =>
    runners.map(({ key, title }) => ({
      name: title,
      points: (marks.get(key) ?? []).map((mark) => [x(mark), y(mark)] as const),
    }));
  const caption =
    'ResNet-20 on CIFAR-10, shifted and mirrored, batch 128. Both fall linearly to rate 0 over their own epochs.';
  const accuracy = (mark: Mark): number => 100 * mark.accuracy;
  return [
    linesChart({
      title: 'Accuracy over time',
      caption,
      x: 'seconds of training',
      y: '% of the test set',
      lines: lines((m) => m.seconds, accuracy),
    }),
    linesChart({
      title: 'Accuracy over epochs',
      caption,
      x: 'epoch',
      y: '% of the test set',
      lines: lines((m) => m.epoch, accuracy),
    }),
    linesChart({
      title: 'Loss over time',
      caption,
      x: 'seconds of training',
      y: 'loss of the epoch',
      lines: lines(
        (m) => m.seconds,
        (m) => m.loss,
      ),
    }),
  ];
}

/** K-FAC against SGD on CIFAR-10 in interleaved blocks of steps; or the reason why not. */
export async function cifarRuns(quick: boolean, seed: number, figures: Figures) {
  const sets = await data();
  if (typeof sets === 'string') return sets;
  const epochs = EPOCHS[quick ? 'quick' : 'full'];
  const course = { model: (of: number) => resnet20({ seed: of }), batchSize: BATCH, seed };
  const { length } = sets.train;
  const part = {
    ...course,
    train: slice(sets.train, 0, TUNING.examples),
    test: slice(sets.train, length - TUNING.held, length),
  };
  const rate = await tune(part, TRIALS.sgd, (trial) => withSgd(trial, TUNING.epochs));
  const damping = await tune(part, TRIALS.kfac, (trial) => withKfac(trial, TUNING.epochs));
  const reports: KfacReport[] = [];
  const runners = [
    withSgd(rate, epochs.sgd),
    withSgd(rate, epochs.short, 'sgd_short'),
    withKfac(damping, epochs.kfac, (report) => reports.push(report)),
  ];
  const marks = await race({ ...course, ...sets }, runners, tell);
  const rows = summarise(marks, runners, figures);
  figures['cifar.sgd.rate'] = rate;
  figures['cifar.kfac.damping'] = damping;
  for (const [phase, ms] of Object.entries(reports[0]?.milliseconds ?? {})) {
    figures[`cifar.kfac.${phase}_seconds`] = round(ms / 1000, 1);
  }
  return { rows, charts: charts(marks, runners) };
}
