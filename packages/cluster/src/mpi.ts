import { checkChoice, checkNumber, checkOptions, type Communicator, fastestSum, FrugalError } from '@frugal/core';
import { communicatorOf } from './mpi/communicator.js';
import { type Context, openGroup } from './mpi/group.js';
import { openLibrary } from './mpi/koffi-lib.js';
import { checkLaunched, libraryNames, prepareLibraries } from './mpi/library.js';
import { type Life, openLife } from './mpi/life.js';
import { openMemory } from './mpi/memory.js';
import { openProgress } from './mpi/progress.js';

/** Options of MPI. */
export interface MpiOptions {
  /**
   * File or name of the MPI library. Without it the variable `FRUGAL_MPI_LIBRARY`, then the library whose launcher started
   * the process, then Open MPI or MPICH, whichever is there.
   */
  readonly library?: string;
  /**
   * An operation that is not complete after this long ends the job, in seconds; 600, and 0 is never. Longer than the
   * longest time that one rank lets the others wait, a first step or a checkpoint.
   */
  readonly timeoutSeconds?: number;
  /**
   * `'mpi'`: sums in the order that the library finds fastest; the same bits on every rank and in every run of the same
   * library and number of ranks, but others elsewhere. `'rank'`: in the order of ranks, floats in float64 and rounded once, the bits of
   * `localCluster`; gathers all values, so `size` times the memory and traffic. `'mpi'` unless told.
   */
  readonly order?: 'mpi' | 'rank';
  /** Ranks compare what they call before they do it, and a mismatch is an error instead of a wait: for debugging; off. */
  readonly verify?: boolean;
}

/** The ranks of an MPI job. */
export interface MpiCommunicator extends Communicator {
  /** What the MPI library calls itself. */
  readonly library: string;
  /** Waits for what is under way and for all ranks to come here, then finalises MPI. Also done when the process ends. */
  close(): Promise<void>;
  /** Ends all ranks with a message on stderr and exit code 1. */
  abort(message: string): void;
  /** `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Opens MPI: one rank per process, started by `mpirun -n 4 node program.js` or `srun`. Calls the system's Open MPI or MPICH
 * (also Intel MPI, MVAPICH, Cray MPICH) through `koffi`; the number of ranks is 1 without a launcher. Call it once in a
 * process, from the main thread.
 *
 * Operations are issued in the order of calls; several may be under way at once and overlap with computing, but data move
 * only while the program awaits. A rank that waits keeps its core busy, though it yields to others. Arrays of 128 bytes and
 * more are sent from where they are; smaller ones are copied. Split once, not in each step: MPI keeps groups until the end.
 *
 * Sets variables in the environment of the process unless they are set: `UCX_MEM_EVENTS` and `UCX_ERROR_SIGNALS`, since UCX,
 * the transport of many MPI libraries, otherwise interferes with V8, and `OMPI_MCA_coll_libnbc_iallreduce_algorithm`, since
 * Open MPI otherwise sends large sums whole, over a tree.
 *
 * Failure ends all ranks: a rank that throws or exits early, an operation that an ended rank has not called, and one older
 * than `timeoutSeconds` end the job with a message that names rank and operation, and a non-zero code. Restart from the last
 * checkpoint.
 *
 * @throws FrugalError `COMMUNICATION` where koffi or MPI is not installed, where the library is not its launcher's, and when
 * MPI is open already; `CONFIG` for bad options
 *
 * @example
 * ```ts
 * await using communicator = await mpi();
 * const values = Float32Array.of(communicator.rank);
 * await communicator.allReduce(values);
 * ```
 */
export async function mpi(options: MpiOptions = {}): Promise<MpiCommunicator> {
  checkOptions('mpi', options, ['library', 'timeoutSeconds', 'order', 'verify']);
  const timeoutSeconds = checkNumber('mpi', 'timeoutSeconds', options.timeoutSeconds ?? 600, { min: 0 });
  const order = checkChoice('mpi', 'order', options.order ?? 'mpi', ['mpi', 'rank']);
  const verify = checkChoice('mpi', 'verify', String(options.verify ?? false), ['true', 'false']) === 'true';
  const sumInRankOrder = order === 'rank' ? await fastestSum() : undefined;
  prepareLibraries(process.env);
  const lib = await openLibrary(libraryNames(options.library, process.env));
  if (lib.initialized()) {
    throw new FrugalError(
      'COMMUNICATION',
      'mpi: expected one call in a process but MPI is open already. Hand the first communicator on.',
    );
  }
  lib.init();
  const state: { life?: Life } = {};
  const context: Context = {
    lib,
    memory: openMemory(),
    progress: openProgress(lib, () => state.life?.watch()),
    sumInRankOrder,
    verify,
    groups: [],
    closed: false,
  };
  const group = openGroup(context, lib.world, '');
  checkLaunched(lib.version, group.size, process.env);
  const life = openLife(context, timeoutSeconds);
  state.life = life;
  return {
    ...communicatorOf(context, group),
    library: lib.version,
    close: life.close,
    abort: (message) => life.abort(`aborts: ${message}`),
    [Symbol.asyncDispose]: life.close,
  };
}
