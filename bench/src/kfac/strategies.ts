import { fileURLToPath } from 'node:url';
import { mpiJob } from '../mpi-job.js';
import { type Figures, round } from '../results.js';

const RANKS = 4;
const MEBI = 2 ** 20;

/** What `strategies-rank.ts` prints of one strategy. */
interface Measured {
  readonly strategy: string;
  readonly ms: number;
  readonly loss: number;
  /** Bytes of decompositions, of the rank that has most. */
  readonly held: number;
  /** Bytes per step handed over by the rank that sends most. */
  readonly factors: number;
  readonly decompositions: number;
  readonly gradients: number;
}

const program = fileURLToPath(new URL('strategies-rank.ts', import.meta.url));
const mebi = (bytes: number): string => (bytes / MEBI).toFixed(2);

/** Strategies of distribution on four ranks of a real MPI job; or the reason why there are none. */
export async function strategies(quick: boolean, figures: Figures): Promise<string[][] | string> {
  let runs: readonly Measured[];
  try {
    runs = await mpiJob(program, {
      ranks: RANKS,
      threads: 1,
      placement: ['--oversubscribe'],
      args: [8, quick ? 21 : 51],
    });
  } catch (error) {
    return `no MPI job: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`;
  }
  const head = [
    `ResNet-20, ${RANKS} ranks`,
    'ms / step',
    'MiB held',
    'factors',
    'decompositions',
    'gradients, MiB / step',
  ];
  return [
    head,
    ...runs.map((run) => {
      const key = `strategy.${run.strategy.replaceAll('-', '_')}`;
      figures[`${key}.ms`] = round(run.ms, 2);
      figures[`${key}.held_mib`] = round(run.held / MEBI, 3);
      for (const purpose of ['factors', 'decompositions', 'gradients'] as const) {
        figures[`${key}.${purpose}_mib_per_step`] = round(run[purpose] / MEBI, 3);
      }
      const cells = [mebi(run.held), mebi(run.factors), mebi(run.decompositions), mebi(run.gradients)];
      return [run.strategy, run.ms.toFixed(1), ...cells];
    }),
  ];
}
