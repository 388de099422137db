import { type Batch, type Dataset, evaluate, stepper, train, type TrainReport, useEngine } from '@frugal/core';
import { alignment, alignmentMeter, type FeedbackReport, type MeasuredAlignment } from '@frugal/feedback';
import { anyDigits } from '@frugal/models';
import { linear, sgd } from '@frugal/optim';
import * as tf from '@tensorflow/tfjs';
import { type FeedbackContender, feedbackContenders, feedbackNetwork, listOf } from './feedback-contenders.js';
import { multiplyAdds, percent } from './summary.js';
import { firstBatch } from './tools.js';
import type { BenchOptions } from './options.js';
import type { Chart } from './drawing.js';
import { linesChart } from './lines.js';
import { writePage } from './page.js';
import { beginResults, factsOf, type Figures, median, type Results, round, table } from './results.js';

const BATCH = 64;
/** Examples on which angles are measured. */
const PROBE = 256;
/** Steps between two measurements of angles. */
const METER_EVERY = 100;

/** Training and test data. */
export interface Split {
  readonly train: Dataset;
  readonly test: Dataset;
}

/** What one training run gave. */
export interface Outcome {
  readonly accuracy: number;
  /** Largest angle over the hidden dense layers. */
  readonly angle: number;
  /** Angles over the run. */
  readonly history: readonly MeasuredAlignment[];
  readonly report: TrainReport;
}

const optimizer = ({ rate }: FeedbackContender) => sgd({ learningRate: linear({ initial: rate }), momentum: 0.9 });

function largestAngle(model: tf.LayersModel, contender: FeedbackContender, probe: Batch, seed: number): number {
  const method = contender.method();
  if (!method) return 0;
  const found = alignment(model, method, probe, { seed });
  return Math.max(...found.filter(({ site }) => site.startsWith('dense')).map(({ angle }) => angle));
}

/** Trains and tests; with `measure`, angles are taken on the way. */
export async function fit(
  contender: FeedbackContender,
  data: Split,
  { epochs, seed, measure = false }: { epochs: number; seed: number; measure?: boolean },
): Promise<Outcome> {
  const model = feedbackNetwork(contender, data.train.shape, seed);
  const method = contender.method();
  const probe = firstBatch(data.test, PROBE);
  const meter = measure && method ? alignmentMeter(probe, { every: METER_EVERY }) : undefined;
  try {
    const report = await train(model, data.train, {
      methods: [...listOf(method), ...(meter ? [meter] : [])],
      optimizer: optimizer(contender),
      epochs,
      batchSize: BATCH,
      seed,
      title: `${contender.title}, ${data.train.name}, ${data.train.length}, seed ${seed}`,
    });
    const accuracy = evaluate(model, data.test).accuracy ?? 0;
    const angle = largestAngle(model, contender, probe, seed);
    return { accuracy, report, angle, history: meter ? report.of(meter) : [] };
  } finally {
    tf.dispose([probe.xs, probe.ys]);
    model.dispose();
  }
}

/** Step times of one contender, and what its feedback cost. */
interface Timed {
  /** Milliseconds per step, round by round. */
  readonly times: readonly number[];
  readonly feedback?: FeedbackReport | undefined;
  /** Examples that `feedback` counts. */
  readonly examples: number;
}

/** Step times of all contenders in interleaved rounds; the first one warms up. */
async function stepTimes(data: Dataset, rounds: number, steps: number): Promise<Map<string, Timed>> {
  const batch = firstBatch(data, BATCH);
  const runs = feedbackContenders.map((contender) => {
    const model = feedbackNetwork(contender, data.shape, 1);
    const method = contender.method();
    const run = stepper(model, { methods: listOf(method), optimizer: sgd({ learningRate: 0.001, momentum: 0.9 }) });
    return { key: contender.key, model, method, run, times: [] as number[] };
  });
  for (let r = 0; r <= rounds; r++) {
    for (const { run, times } of runs) {
      const started = performance.now();
      for (let i = 0; i < steps; i++) await run.step(batch);
      if (r > 0) times.push((performance.now() - started) / steps);
    }
  }
  const examples = (rounds + 1) * steps * BATCH;
  const found = new Map(
    runs.map(({ key, times, method, run }) => [key, { times, feedback: method && run.of(method), examples }]),
  );
  for (const { run, model } of runs) {
    run.dispose();
    model.dispose();
  }
  tf.dispose([batch.xs, batch.ys]);
  return found;
}

/** The figures of one contender on the whole of MNIST, and its row of the table. */
function summarise(
  { key, title }: FeedbackContender,
  runs: readonly Outcome[],
  { times, feedback, examples }: Timed,
  exact: { times: readonly number[]; multiplyAdds: number },
): { figures: Figures; row: string[] } {
  const ratio = median(times.map((t, r) => t / (exact.times[r] as number)));
  const accuracy = median(runs.map((run) => run.accuracy));
  const share = multiplyAdds((runs[0] as Outcome).report) / exact.multiplyAdds;
  const figures: Figures = {
    [`${key}.accuracy`]: round(accuracy),
    [`${key}.step_ratio`]: round(ratio, 3),
    [`${key}.step_ms`]: round(median(times), 3),
    [`${key}.multiply_adds`]: round(share),
  };
  const cells = [percent(accuracy, 2), '–', ratio.toFixed(3), share.toFixed(3), '–', '–'];
  if (feedback) {
    const angle = Math.max(...runs.map((run) => run.angle));
    const perExample = feedback.multiplies / examples;
    figures[`${key}.angle_max`] = round(angle, 1);
    figures[`${key}.storage_ratio`] = round(feedback.bytes / feedback.floatBytes, 5);
    figures[`${key}.feedback_multiplies`] = round(perExample, 1);
    cells[1] = `${angle.toFixed(0)}°`;
    cells[4] = (feedback.bytes / 1024).toFixed(1);
    cells[5] = String(Math.round(perExample));
  }
  return { figures, row: [title, ...cells] };
}

/** The whole of MNIST: accuracy, angle, step time, arithmetic and storage of each contender. */
async function whole(data: Split, seeds: readonly number[], quick: boolean, figures: Figures) {
  const epochs = quick ? 3 : 8;
  const timed = await stepTimes(data.train, quick ? 9 : 15, 20);
  const { times } = timed.get('bp') as Timed;
  let reference = 0;
  const charts: Chart[] = [];
  const rows = [
    [
      'MNIST',
      'accuracy',
      'largest angle',
      'step / bp',
      'multiply-adds',
      'feedback KiB',
      'its multiplications / example',
    ],
  ];
  for (const contender of feedbackContenders) {
    const runs: Outcome[] = [];
    for (const seed of seeds) runs.push(await fit(contender, data, { epochs, seed, measure: seed === seeds[0] }));
    reference ||= multiplyAdds((runs[0] as Outcome).report);
    const exact = { times, multiplyAdds: reference };
    const { figures: own, row } = summarise(contender, runs, timed.get(contender.key) as Timed, exact);
    Object.assign(figures, own);
    rows.push(row);
    const { history } = runs[0] as Outcome;
    if (history.length > 0) charts.push(angleChart(contender.title, history));
  }
  return { rows, charts };
}

function angleChart(title: string, history: readonly MeasuredAlignment[]): Chart {
  const names = history[0]?.sites.map(({ site }) => site).filter((site) => site !== 'output') ?? [];
  return linesChart({
    title,
    caption: `Angle between the method's gradient and that of back-propagation at the same weights, on ${PROBE} test images. 90° is chance.`,
    x: 'steps',
    y: 'degrees',
    lines: names.map((name) => ({
      name,
      points: history.map(({ step, sites }) => [step, sites.find(({ site }) => site === name)?.angle ?? 90] as const),
    })),
  });
}

const FOOTNOTES = [
  'LeNet with 16 and 32 channels, two hidden dense layers of 256, tanh. Each method has the learning rate that was best of a few on 10,000 examples. The dense layers of feedback methods begin at zero, those of back-propagation by Glorot, which each needs.',
  'Step times are medians of interleaved rounds, as ratios to the step of back-propagation in the same round. Multiply-adds are those of all products of a run over those of back-propagation; an addition of a signed value counts as one there. The last two columns are what the feedback itself stores and multiplies.',
];

/**
 * Feedback methods against back-propagation on one convolutional network and the whole of MNIST: accuracy, angles, times,
 * arithmetic.
 */
export async function feedback({ quick, seed, report }: BenchOptions): Promise<Results> {
  const engine = await useEngine();
  const finish = beginResults('feedback', seed);
  const seeds = Array.from({ length: quick ? 1 : 5 }, (_, i) => seed + i);
  const data = await anyDigits();
  const figures: Figures = { real_data: data.train.name === 'MNIST' ? 1 : 0, seeds: seeds.length };
  const { rows, charts } = await whole(data, seeds, quick, figures);
  process.stdout.write(`${table(rows)}\n${data.train.name}, batch ${BATCH}, ${engine.detail}\n\n`);
  const results = finish(figures);
  const lead = `Back-propagation ${percent(figures['bp.accuracy'] as number, 2)}; direct feedback in the dense layers ${percent(figures['cdfa.accuracy'] as number, 2)}, in all layers ${percent(figures['dfa.accuracy'] as number, 2)}, by signs ${percent(figures['bdfa.accuracy'] as number, 2)}.`;
  const title = `Errors sent straight to the layers: ${data.train.name}`;
  writePage(report, { title, lead, tables: [rows], facts: factsOf(results), charts, footnotes: FOOTNOTES });
  return results;
}
