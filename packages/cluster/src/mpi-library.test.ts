import { FrugalError } from '@frugal/core';
import { describe, expect, it } from 'vitest';
import { environmentRank, mpi } from './index.js';
import { abiOf } from './mpi/abi.js';
import { openLibrary } from './mpi/koffi-lib.js';
import { checkLaunched, libraryNames, prepareLibraries } from './mpi/library.js';
import { openMemory } from './mpi/memory.js';

describe('environmentRank', () => {
  it.each([
    [{}, { rank: 0, size: 1, localRank: undefined, launcher: undefined }],
    [
      { OMPI_COMM_WORLD_RANK: '3', OMPI_COMM_WORLD_SIZE: '8', OMPI_COMM_WORLD_LOCAL_RANK: '1', PMIX_RANK: '3' },
      { rank: 3, size: 8, localRank: 1, launcher: 'Open MPI' },
    ],
    [{ PMIX_RANK: '2' }, { rank: 2, size: undefined, localRank: undefined, launcher: 'PMIx' }],
    [
      { PMI_RANK: '1', PMI_SIZE: '4', MPI_LOCALRANKID: '0' },
      { rank: 1, size: 4, localRank: 0, launcher: 'PMI' },
    ],
    [
      { SLURM_PROCID: '5', SLURM_STEP_NUM_TASKS: '6', SLURM_LOCALID: '2', SLURM_NTASKS: '12' },
      { rank: 5, size: 6, localRank: 2, launcher: 'Slurm' },
    ],
    [{ PMI_RANK: 'none' }, { rank: 0, size: 1, localRank: undefined, launcher: undefined }],
  ])('%o', (environment, expected) => {
    expect(environmentRank(environment)).toEqual(expected);
  });
});

describe('which library', () => {
  it('an option goes before the variable, the variable before the launcher', () => {
    expect(libraryNames('a.so', { FRUGAL_MPI_LIBRARY: 'b.so' })).toEqual(['a.so']);
    expect(libraryNames(undefined, { FRUGAL_MPI_LIBRARY: 'b.so', PMI_RANK: '0' })).toEqual(['b.so']);
    expect(libraryNames(undefined, { PMI_RANK: '0' })[0]).toMatch(/mpich/);
    expect(libraryNames(undefined, { PMI_RANK: '0', OMPI_COMM_WORLD_RANK: '0' })[0]).toMatch(/mpi.*40/);
    expect(libraryNames(undefined, {})[0]).toMatch(/mpi.*40/);
  });

  it('the ABI follows from what the library calls itself', () => {
    const address = (symbol: string): bigint => BigInt(symbol.length);
    expect(abiOf('Open MPI v5.0.3, package: …', address).world).toBe(19n);
    for (const name of [
      'MPICH Version:\t4.0.2',
      'Intel(R) MPI Library 2021.11',
      'MVAPICH2 Version: 2.3',
      'CRAY MPICH',
    ]) {
      expect(abiOf(name, address).world).toBe(0x44000000);
    }
    expect(() => abiOf('LAM/MPI 7', address)).toThrow(/expected Open MPI .* received "LAM\/MPI 7"/);
  });

  it('UCX leaves memory functions and SIGSEGV to V8, Open MPI sums in parts, unless the user says otherwise', () => {
    const environment: NodeJS.ProcessEnv = {};
    prepareLibraries(environment);
    expect(environment).toEqual({
      OMPI_MCA_coll_libnbc_iallreduce_algorithm: '3',
      UCX_MEM_EVENTS: 'n',
      UCX_ERROR_SIGNALS: 'SIGILL,SIGBUS,SIGFPE',
    });
    const own = {
      OMPI_MCA_coll_libnbc_iallreduce_algorithm: '0',
      UCX_MEM_EVENTS: 'y',
      UCX_ERROR_SIGNALS: '',
    };
    const before = { ...own };
    prepareLibraries(own);
    expect(own).toEqual(before);
  });

  it('more ranks launched than MPI sees is an error', () => {
    checkLaunched('MPICH', 4, { PMI_SIZE: '4' });
    checkLaunched('MPICH', 1, {});
    expect(() => checkLaunched('MPICH', 1, { OMPI_COMM_WORLD_SIZE: '4' })).toThrow(/the 4 ranks .* MPICH sees 1/);
  });
});

describe('what is missing', () => {
  const failure = async (promise: Promise<unknown>): Promise<string> => {
    const error: unknown = await promise.catch((cause: unknown) => cause);
    expect(FrugalError.is(error)).toBe(true);
    return (error as Error).message;
  };

  it('koffi: what to install', async () => {
    const importer = async (): Promise<unknown> => Promise.reject(new Error('Cannot find package'));
    expect(await failure(openLibrary(['libmpi.so.40'], importer))).toMatch(/package koffi.*npm install koffi/);
  });

  it('MPI: what was tried and what to install', async () => {
    const load = (name: string | null): never => {
      throw new Error(`no ${name ?? ''}`);
    };
    const importer = async (): Promise<unknown> => ({ load });
    expect(await failure(openLibrary(['x.so', 'y.so'], importer))).toMatch(
      /x\.so: no x\.so; y\.so: no y\.so.*apt-get install openmpi-bin/,
    );
  });

  it('options are checked before MPI is opened', async () => {
    expect(await failure(mpi({ timeout: 3 } as object))).toMatch(/timeout/);
    expect(await failure(mpi({ order: 'fast' as 'mpi' }))).toMatch(/order/);
    expect(await failure(mpi({ timeoutSeconds: -1 }))).toMatch(/timeoutSeconds/);
    expect(await failure(mpi({ verify: 'yes' as unknown as boolean }))).toMatch(/verify/);
  });
});

describe('memory that V8 does not move', () => {
  it('small arrays are copied into blocks of 128 bytes, larger ones stay where they are', () => {
    const memory = openMemory();
    const small = Float32Array.of(1, 2, 3);
    const fixed = memory.fixed(small);
    expect(fixed.byteLength).toBe(128);
    expect(fixed.subarray(0, 3)).toEqual(small);
    const large = new Float64Array(16);
    expect(memory.fixed(large)).toBe(large);
    expect(memory.request().byteLength).toBe(128);
  });

  it('takes its own blocks back, never an array of the caller', () => {
    const memory = openMemory();
    const own = new Int32Array(32);
    const block = memory.fixed(Int32Array.of(1));
    memory.release(block, own);
    expect(memory.room(own, 3).buffer).toBe(block.buffer);
    expect(memory.room(own, 3).buffer).not.toBe(own.buffer);
  });
});
