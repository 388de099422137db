import { availableParallelism } from 'node:os';
import { activeEngine, type Batch, stepper, type Stepper, stream, useEngine } from '@frugal/core';
import { mlp, resnet20 } from '@frugal/models';
import { sgd } from '@frugal/optim';
import * as tf from '@tensorflow/tfjs';
import type { BenchOptions } from './options.js';
import { beginResults, type Figures, median, type Results, round, table } from './results.js';
import { hasTorch, type TorchRival, torchRivals } from './torch.js';

const BATCH = 128;

interface Network {
  /** Key in the figures. */
  readonly key: string;
  readonly name: 'mlp' | 'resnet20';
  readonly shape: readonly number[];
  model(): tf.LayersModel;
  /** Steps per round. */
  readonly steps: number;
}

const networks: readonly Network[] = [
  {
    key: 'mlp1024',
    name: 'mlp',
    shape: [784],
    steps: 60,
    model: () => mlp({ inputShape: [784], hidden: [1024, 1024], seed: 1 }),
  },
  { key: 'resnet20', name: 'resnet20', shape: [32, 32, 3], steps: 4, model: () => resnet20({ seed: 1 }) },
];

function fixedBatch(shape: readonly number[], seed: number): Batch {
  const random = stream(seed, 'bench engine');
  const size = shape.reduce((a, b) => a * b, BATCH);
  return {
    xs: tf.tensor(Float32Array.from({ length: size }, random.normal), [BATCH, ...shape]),
    ys: tf.tidy(() =>
      tf.cast(
        tf.oneHot(
          tf.tensor1d(
            Int32Array.from({ length: BATCH }, () => random.below(10)),
            'int32',
          ),
          10,
        ),
        'float32',
      ),
    ),
  };
}

async function ours(run: Stepper, batch: Batch, count: number): Promise<number> {
  const started = performance.now();
  for (let i = 0; i < count; i++) await run.step(batch);
  return (performance.now() - started) / count;
}

/** Interleaved rounds of one network: ours, then each rival, and so on. */
async function measure(
  network: Network,
  rivals: readonly TorchRival[],
  rounds: number,
  seed: number,
): Promise<{ times: Map<string, number[]>; counters: Figures }> {
  const model = network.model();
  const run = stepper(model, { optimizer: sgd({ learningRate: 0.01, momentum: 0.9 }) });
  const batch = fixedBatch(network.shape, seed);
  const times = new Map<string, number[]>([['ours', []], ...rivals.map(({ key }) => [key, []] as [string, number[]])]);
  await ours(run, batch, network.steps);
  for (const rival of rivals) await rival.steps(Math.max(3, network.steps >> 1));
  const engine = activeEngine();
  engine?.resetCounters();
  let steps = 0;
  for (let r = 0; r < rounds; r++) {
    times.get('ours')?.push(await ours(run, batch, network.steps));
    steps += network.steps;
    for (const rival of rivals) times.get(rival.key)?.push(await rival.steps(network.steps));
    process.stderr.write(`${network.key}: round ${r + 1} of ${rounds}\r`);
  }
  process.stderr.write('\u001b[2K');
  const { newBuffers = 0, fallbacks = {} } = engine?.counters() ?? {};
  run.dispose();
  tf.dispose([batch.xs, batch.ys]);
  const calls = Object.values(fallbacks).reduce((a, b) => a + b, 0);
  return { times, counters: { new_buffers: newBuffers / steps, fallbacks: calls / steps } };
}

/** Median over rounds of rival's time over ours in the same round. */
const ratio = (rival: readonly number[], own: readonly number[]): number =>
  median(rival.map((t, i) => t / (own[i] as number)));

function summarise(
  key: string,
  times: ReadonlyMap<string, readonly number[]>,
  figures: Figures,
  rows: string[][],
): void {
  const own = times.get('ours') as number[];
  figures[`${key}.ms`] = round(median(own), 3);
  rows.push([key, 'Frugal', median(own).toFixed(2), '1.00']);
  const ratios = new Map<string, number>();
  for (const [rival, values] of times) {
    if (rival === 'ours') continue;
    ratios.set(rival, ratio(values, own));
    figures[`${key}.${rival}_ms`] = round(median(values), 3);
    rows.push([key, rival.replaceAll('_', ' '), median(values).toFixed(2), (ratios.get(rival) as number).toFixed(2)]);
  }
  if (ratios.size === 0) return;
  figures[`${key}.vs_torch_best`] = round(Math.min(...ratios.values()), 3);
  for (const [rival, value] of ratios) figures[`${key}.vs_${rival}`] = round(value, 3);
}

/** Time of a whole training step, side by side with PyTorch on the same cores. */
export async function engine({ quick, seed, python }: BenchOptions): Promise<Results> {
  const used = await useEngine();
  const threads = availableParallelism();
  const figures: Figures = {};
  const rows = [['network', 'engine', 'ms / step', 'its time / ours']];
  const versions: Record<string, string> = {};
  if (!hasTorch(python))
    process.stderr.write(
      `${python} has no PyTorch: only our own times are taken. Name another interpreter with --python.\n`,
    );
  const finish = beginResults('engine', seed, versions);
  for (const network of networks) {
    const rivals = await torchRivals(python, network.name, threads);
    for (const { version } of rivals) versions['torch'] = version;
    const { times, counters } = await measure(network, rivals, quick ? 9 : 25, seed);
    for (const rival of rivals) rival.stop();
    summarise(network.key, times, figures, rows);
    for (const [name, value] of Object.entries(counters)) figures[`${network.key}.${name}`] = round(value);
  }
  process.stdout.write(`${table(rows)}\nbatch ${BATCH}, ${threads} threads, ${used.detail}\n`);
  return finish(figures);
}
