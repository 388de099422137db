import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { localCluster } from '@frugal/cluster';
import { useEngine } from '@frugal/core';
import { anyDigits } from '@frugal/models';
import { linesChart } from './lines.js';
import { mpiJob } from './mpi-job.js';
import type { BenchOptions } from './options.js';
import { writePage } from './page.js';
import { percent } from './summary.js';
import { beginResults, factsOf, type Figures, type Results, round, table } from './results.js';
import { fitLink, type Link, predict, type Sample } from './wire/cost-model.js';
import { limitedNetwork, type Network, sharedMemory } from './wire/network.js';
import { type Outcome, sampledAccuracy } from './wire/sampled-accuracy.js';
import { wireMethods } from './wire/wire-methods.js';

const BATCH = 32;
const NODES = 4;

/** What `wire-rank.ts` prints. */
interface Measured {
  readonly ranks: number;
  readonly ms: Readonly<Record<string, number>>;
  readonly bytes: Readonly<Record<string, number>>;
}

/** Runs a program of this folder on a network. */
function launch<T>(network: Network, ranks: number, file: string, args: readonly number[]): Promise<T> {
  const threads = Math.max(1, Math.floor(availableParallelism() / ranks));
  const program = fileURLToPath(new URL(`wire/${file}`, import.meta.url));
  return mpiJob(program, { ranks, threads, placement: network.placement(ranks), args });
}

const job = (network: Network, ranks: number, rounds: number): Promise<Measured> =>
  launch(network, ranks, 'wire-rank.ts', [BATCH, rounds]);

/**
 * Latency and bandwidth that explain how much longer steps are on a limited network than through shared memory, where the
 * exchange costs only its arithmetic and copies.
 */
function fit(runs: readonly Measured[], free: readonly Measured[]): Link {
  const samples: Sample[] = runs.flatMap(({ ranks, ms, bytes }, i) =>
    wireMethods.map((method) => {
      const pattern = method.pattern(bytes[method.key] as number);
      const without = (free[i] as Measured).ms[method.key] as number;
      const seconds = Math.max(1e-5, ((ms[method.key] as number) - without) / 1000);
      return { messages: pattern.messages(ranks), bytes: pattern.bytes(ranks), seconds };
    }),
  );
  return fitLink(samples);
}

const MEBI = 2 ** 20;

/** The name of a network in keys. */
const slugOf = ({ name }: Pick<Network, 'name'>): string => name.replaceAll(/[^\w]+/g, '_').toLowerCase();

/** Time and bytes per step on one network, as rows and figures. */
function describe({ name }: Pick<Network, 'name'>, runs: readonly Measured[], figures: Figures): string[][] {
  const slug = slugOf({ name });
  return runs.flatMap(({ ranks, ms, bytes }) =>
    wireMethods.map(({ key, title }) => {
      const [whole, alone] = [ms[key] as number, ms[`${key}.alone`] as number];
      figures[`${slug}.${ranks}.${key}.ms`] = round(whole, 2);
      figures[`${slug}.${ranks}.${key}.exchange_ms`] = round(whole - alone, 2);
      figures[`lenet.${key}.mib_per_step`] = round((bytes[key] as number) / MEBI, 3);
      const cells = [((bytes[key] as number) / MEBI).toFixed(2), alone.toFixed(1), whole.toFixed(1)];
      return [`${name}, ${ranks} ranks: ${title}`, ...cells];
    }),
  );
}

const RANKS = Array.from({ length: 10 }, (_, i) => 2 ** (i + 1));

/** The fitted model, extrapolated. */
function extrapolation({ name }: Network, runs: readonly Measured[], free: readonly Measured[], link: Link) {
  const largest = Math.max(...runs.map(({ ranks }) => ranks));
  const bandwidth = link.perByte > 0 ? `${(8e-9 / link.perByte).toFixed(2)} Gbit/s` : 'no limit that shows';
  return linesChart({
    title: `Extrapolation: step time on ${name}`,
    caption: `A MODEL, fitted to ${runs.map(({ ranks }) => ranks).join(' and ')} ranks and extrapolated beyond ${largest}: the step of 2 ranks through shared memory + ${(1000 * link.latency).toFixed(3)} ms per message + ${bandwidth}. It knows of no congestion, no stragglers and no hierarchy of links.`,
    x: 'ranks',
    y: 'seconds per step',
    lines: wireMethods.map((method) => {
      const { bytes, ms } = free[0] as Measured;
      const compute = (ms[method.key] as number) / 1000;
      const pattern = method.pattern(bytes[method.key] as number);
      return { name: method.title, points: RANKS.map((n) => [n, predict(compute, link, pattern, n)] as const) };
    }),
    log: { x: true, y: true },
  });
}

const FOOTNOTES = [
  `Real MPI jobs of one process per rank, LeNet with batches of ${BATCH} per rank. “Alone” is the same step without the exchange, run by all ranks at the same time in interleaved rounds, so that the difference is the exchange. With more ranks than cores all times grow.`,
  'Limited networks are network namespaces on one machine, one per rank, whose links send at most so much. Bytes are the values that a rank hands over in a step; a ring all-reduce sends 2(n − 1)/n times as much.',
];

/** Runs on one network, as rows and figures. */
async function measure(
  network: Network,
  quick: boolean,
  figures: Figures,
): Promise<{ runs: Measured[]; rows: string[][] }> {
  const rounds = quick ? 9 : 21;
  const runs = [await job(network, 2, rounds), await job(network, 4, rounds)];
  const rows = describe(network, runs, figures);
  process.stdout.write(`${table([HEAD, ...rows])}\n\n`);
  return { runs, rows };
}

/** Accuracy of two ranks: processes of an MPI job, or of this process where there is no MPI. */
async function outcomes(seed: number, epochs: number): Promise<{ name: string; exact: Outcome; sampled: Outcome }> {
  try {
    return await launch(sharedMemory, 2, 'accuracy-rank.ts', [seed, epochs]);
  } catch {
    const data = await anyDigits();
    const [outcome] = await localCluster(2, (communicator) => sampledAccuracy(communicator, data, { seed, epochs }));
    return { name: `${data.train.name}, ranks of one process`, ...(outcome as { exact: Outcome; sampled: Outcome }) };
  }
}

const HEAD = ['network, ranks, method', 'MiB / step', 'alone, ms', 'step, ms'];

/** All networks: measured, fitted, drawn. */
async function networks(quick: boolean, figures: Figures) {
  const free = await measure(sharedMemory, quick, figures);
  const rows = [HEAD, ...free.rows];
  const charts = [];
  const notes: string[] = [];
  for (const megabits of quick ? [1000] : [1000, 100]) {
    const network = limitedNetwork(NODES, megabits);
    if (typeof network === 'string') {
      notes.push(network);
      continue;
    }
    try {
      const { runs, rows: more } = await measure(network, quick, figures);
      const link = fit(runs, free.runs);
      rows.push(...more);
      charts.push(extrapolation(network, runs, free.runs, link));
      const slug = slugOf(network);
      figures[`${slug}.latency_ms`] = round(1000 * link.latency, 4);
      figures[`${slug}.gbit_per_s`] = link.perByte > 0 ? round(8e-9 / link.perByte, 3) : 0;
    } finally {
      network.close();
    }
  }
  return { rows, charts, notes };
}

/** Bytes and time on the wire of all-reduce, sampled all-reduce and one-peer DecentLaM; accuracy of the sampled one. */
export async function wire({ quick, seed, report }: BenchOptions): Promise<Results> {
  const figures: Figures = {};
  const finish = beginResults('wire', seed);
  const { rows, charts, notes } = await networks(quick, figures).catch((error: unknown) => ({
    rows: [HEAD],
    charts: [],
    notes: [`No MPI job could be run: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`],
  }));
  const engine = await useEngine();
  const { name, exact, sampled } = await outcomes(seed, quick ? 3 : 8);
  figures['mnist.bytes_saved'] = round(1 - sampled.bytesPerStep / exact.bytesPerStep);
  figures['mnist.accuracy_drop'] = round(exact.accuracy - sampled.accuracy);
  figures['mnist.all_reduce.accuracy'] = round(exact.accuracy);
  figures['mnist.sampled.accuracy'] = round(sampled.accuracy);
  const accuracy = [
    [`${name}, LeNet, 2 ranks`, 'accuracy', 'MiB / step'],
    ['all-reduce', percent(exact.accuracy, 2), (exact.bytesPerStep / MEBI).toFixed(2)],
    ['sampled all-reduce', percent(sampled.accuracy, 2), (sampled.bytesPerStep / MEBI).toFixed(2)],
  ];
  process.stdout.write(`${table(accuracy)}\n${engine.detail}\n${notes.map((note) => `note: ${note}\n`).join('')}`);
  const results = finish(figures);
  const lead = `Sampled all-reduce hands over ${percent(figures['mnist.bytes_saved'], 2)} fewer bytes, for ${percent(figures['mnist.accuracy_drop'], 2)} of accuracy.`;
  const title = 'What travels between ranks';
  writePage(report, {
    title,
    lead,
    notes,
    tables: [rows, accuracy],
    facts: factsOf(results),
    charts,
    footnotes: FOOTNOTES,
  });
  return results;
}
