import { type Batch, stepper, stream } from '@frugal/core';
import { resnet20 } from '@frugal/models';
import { kfac, sgd } from '@frugal/optim';
import * as tf from '@tensorflow/tfjs';
import { type Figures, median, round } from '../results.js';

const BATCH = 128;
const RATE = 0.05;
/** Intervals of factors and decompositions. */
const INTERVALS = [
  [1, 10],
  [10, 100],
  [50, 500],
] as const;

function randomBatch(): Batch {
  const random = stream(1, 'bench kfac');
  return {
    xs: tf.tensor4d(Float32Array.from({ length: BATCH * 32 * 32 * 3 }, random.normal), [BATCH, 32, 32, 3]),
    ys: tf.tidy(() =>
      tf
        .oneHot(
          tf.tensor1d(
            Int32Array.from({ length: BATCH }, () => random.below(10)),
            'int32',
          ),
          10,
        )
        .toFloat(),
    ),
  };
}

/** A run of so many steps, and its times. */
function open(intervals: readonly [number, number] | undefined, batch: Batch) {
  const model = resnet20({ seed: 1 });
  const method = intervals && kfac({ factorEvery: intervals[0], inverseEvery: intervals[1] });
  const run = stepper(model, {
    optimizer: sgd({ learningRate: RATE, momentum: 0.9 }),
    ...(method && { methods: [method] }),
  });
  const times: number[] = [];
  return {
    intervals,
    times,
    report: () => method && run.of(method),
    async step(): Promise<void> {
      const started = performance.now();
      await run.step(batch);
      times.push(performance.now() - started);
    },
    dispose(): void {
      run.dispose();
      model.dispose();
    },
  };
}

type Opened = ReturnType<typeof open>;

/**
 * Mean time of a step over a whole period, from medians of its kinds: steps that only precondition, those that also update
 * factors, and those that decompose as well.
 */
function perStep({ times, intervals }: Opened): { mean: number; plain: number; factors: number; decompose: number } {
  if (!intervals) return { mean: median(times), plain: median(times), factors: 0, decompose: 0 };
  const [factorEvery, inverseEvery] = intervals;
  const kindOf = (step: number): number => (step % inverseEvery === 0 ? 2 : step % factorEvery === 0 ? 1 : 0);
  // The first step compiles and allocates.
  const of = (kind: number): number => {
    const found = times.filter((_, step) => step > 0 && kindOf(step) === kind);
    return found.length > 0 ? median(found) : 0;
  };
  const [plain, factors, decompose] = [of(0) || of(1), of(1) || of(0), of(2) || (times[0] as number)];
  const [shareOfFactors, shareOfInverses] = [1 / factorEvery - 1 / inverseEvery, 1 / inverseEvery];
  return {
    mean: plain + (factors - plain) * shareOfFactors + (decompose - plain) * shareOfInverses,
    plain,
    factors,
    decompose,
  };
}

/** Time of a K-FAC step against the step of SGD on ResNet-20, in interleaved rounds, and what it goes into. */
export async function overhead(quick: boolean, figures: Figures): Promise<string[][]> {
  const batch = randomBatch();
  const runs = [undefined, ...INTERVALS].map((intervals) => open(intervals, batch));
  const rounds = quick ? 101 : 201;
  for (let round = 0; round < rounds; round++) for (const run of runs) await run.step();
  const exact = perStep(runs[0] as Opened).mean;
  const rows = [
    ['ResNet-20, batch 128', 'ms / step', '× SGD', 'preconditioning', 'with factors', 'with decomposition'],
  ];
  for (const run of runs) {
    const { mean: whole, plain, factors, decompose } = perStep(run);
    const name = run.intervals ? `K-FAC, intervals ${run.intervals.join(' / ')}` : 'SGD with momentum';
    const parts = run.intervals ? [plain, factors, decompose].map((ms) => ms.toFixed(0)) : ['–', '–', '–'];
    rows.push([name, whole.toFixed(1), (whole / exact).toFixed(3), ...parts]);
    if (!run.intervals) continue;
    const key = `resnet20.${run.intervals.join('_')}`;
    figures[`${key}.overhead`] = round(whole / exact);
    const report = run.report();
    for (const [phase, ms] of Object.entries(report?.milliseconds ?? {}))
      figures[`${key}.${phase}_ms`] = round(ms / rounds, 3);
  }
  figures['resnet20.sgd_ms'] = round(exact, 2);
  figures['resnet20.step_overhead'] = figures['resnet20.10_100.overhead'] as number;
  for (const run of runs) run.dispose();
  tf.dispose([batch.xs, batch.ys]);
  return rows;
}
