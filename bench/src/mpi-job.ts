import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** How a job is started. */
export interface MpiJob {
  readonly ranks: number;
  /** Threads of each rank. */
  readonly threads: number;
  /** Arguments of mpirun that say where ranks run. */
  readonly placement: readonly string[];
  /** Arguments of the program. */
  readonly args?: readonly number[];
}

/** Runs a TypeScript program by mpirun, one process per rank, and reads the JSON that rank 0 prints last. */
export async function mpiJob<T>(program: string, { ranks, threads, placement, args = [] }: MpiJob): Promise<T> {
  const node = [process.execPath, '--conditions=@frugal/source', '--import', 'tsx', program, ...args.map(String)];
  const env = { ...process.env, OMP_NUM_THREADS: String(threads), GOMP_SPINCOUNT: '1000' };
  const placed = ['--allow-run-as-root', ...placement, '-n', String(ranks), ...node];
  const { stdout } = await execute('mpirun', placed, { env, timeout: 1_200_000, maxBuffer: 2 ** 26 });
  return JSON.parse(stdout.trim().split('\n').at(-1) as string) as T;
}
