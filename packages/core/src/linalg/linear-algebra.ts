import { checkChoice } from '../check.js';
import { FrugalError } from '../errors.js';
import { algebraOn, type LinearAlgebra } from './algebra.js';

const CHOICES = ['auto', 'lapack', 'ml-matrix'] as const;

/**
 * Dense linear algebra: by LAPACK (OpenBLAS, one thread) where `@frugal/native` and OpenBLAS are to be had, else by
 * ml-matrix. OpenBLAS enters the process with the first call, not before; the engine of TensorFlow.js does not matter. Links
 * and methods call it in their `prepare`.
 *
 * @param name - a library to insist on; default: `auto`
 * @throws {@link FrugalError} `ENGINE` when LAPACK was asked for by name and cannot be had, with the reason
 * @example
 * ```ts
 * const { symmetricEigenAsync } = await linearAlgebra();
 * const { values, vectors } = await symmetricEigenAsync(toMatrix(covariance));
 * ```
 */
export async function linearAlgebra(name: 'auto' | LinearAlgebra['name'] = 'auto'): Promise<LinearAlgebra> {
  const choice = checkChoice('linearAlgebra', 'name', name, CHOICES);
  if (choice === 'ml-matrix') return byMlMatrix('as asked');
  try {
    const { loadLapack } = await import('@frugal/native');
    return algebraOn('lapack', loadLapack());
  } catch (error) {
    const reason = (error as Error).message.replaceAll(/\s*\n\s*/g, ' ');
    if (choice === 'auto') return byMlMatrix(`not LAPACK: ${reason}`);
    throw new FrugalError('ENGINE', `linearAlgebra: lapack cannot be used. ${reason}`, { cause: error });
  }
}

async function byMlMatrix(reason: string): Promise<LinearAlgebra> {
  const { mlMatrix } = await import('./ml-matrix.js');
  return algebraOn('ml-matrix', mlMatrix(reason));
}

/** What a link has before its `prepare` was awaited: throws `CONFIG` with the remedy. */
export function unprepared(owner: string): never {
  throw new FrugalError(
    'CONFIG',
    `${owner}: expected to be prepared before its first step. Await optimizer.prepare() before model.fit, or prepare() of what was opened.`,
  );
}
