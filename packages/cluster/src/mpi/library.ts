import { FrugalError } from '@frugal/core';

const extension =
  process.platform === 'darwin' ? (version: number) => `${version}.dylib` : (version: number) => `so.${version}`;
const OPEN_MPI = [`libmpi.${extension(40)}`];
const MPICH = [`libmpich.${extension(12)}`, `libmpi.${extension(12)}`];

/**
 * Names of the libraries to try, best first: the one asked for, or the one whose launcher started the process. Ranks that
 * open another library than their launcher's would each believe to be alone.
 */
export function libraryNames(asked: string | undefined, environment: NodeJS.ProcessEnv): readonly string[] {
  const named = asked ?? environment['FRUGAL_MPI_LIBRARY'];
  if (named) return [named];
  // Open MPI's launcher may set PMI_RANK as well; MPICH's never sets this one.
  const isMpich = environment['OMPI_COMM_WORLD_RANK'] === undefined && environment['PMI_RANK'] !== undefined;
  return isMpich ? [...MPICH, ...OPEN_MPI] : [...OPEN_MPI, ...MPICH];
}

/**
 * Settings of MPI libraries that must be there before one is loaded. What the user has set stays.
 *
 * `OMPI_MCA_coll_libnbc_iallreduce_algorithm=3`: for sums in place Open MPI 4.1 takes a tree, on which log₂ n whole arrays
 * follow one another up and again down; this is a reduce-scatter and an all-gather (Rabenseifner), which send 2(n − 1)/n of
 * one. 12.5 MiB over 1 Gbit/s: 230 → 120 ms on two ranks, 560 → 200 ms on four.
 *
 * `UCX_MEM_EVENTS=n`: UCX, the transport below many builds of MPI, would patch the memory functions of the C library while
 * V8's threads run. With UCX 1.13 and MPICH 4.0.2 one start of four ranks in ten died of a corrupted heap; none of 90 did
 * with this. It costs UCX its cache of memory registrations, which only RDMA networks use.
 *
 * `UCX_ERROR_SIGNALS` without SIGSEGV: UCX's handler left a crashed rank hanging, and V8 has uses of its own for the signal.
 */
export function prepareLibraries(environment: NodeJS.ProcessEnv): void {
  environment['OMPI_MCA_coll_libnbc_iallreduce_algorithm'] ??= '3';
  environment['UCX_MEM_EVENTS'] ??= 'n';
  environment['UCX_ERROR_SIGNALS'] ??= 'SIGILL,SIGBUS,SIGFPE';
}

/** Throws if the launcher started more ranks than MPI sees. */
export function checkLaunched(version: string, size: number, environment: NodeJS.ProcessEnv): void {
  const launched = Number(environment['OMPI_COMM_WORLD_SIZE'] ?? environment['PMI_SIZE'] ?? size);
  if (launched === size) return;
  throw new FrugalError(
    'COMMUNICATION',
    `mpi: expected the ${launched} ranks that the launcher started but ${version} sees ${size}. Start with the launcher of that library (mpirun.openmpi, mpirun.mpich, srun --mpi=…), or set FRUGAL_MPI_LIBRARY to the launcher's. A launcher that hands its connection on as a file descriptor (MPICH) must start node itself, not a program that starts node.`,
  );
}
