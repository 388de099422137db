import { access, mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { checkOptions, type Dataset, FrugalError } from '@frugal/core';

/** Where a loader looks for its files, and what it may do when they are not there. */
export interface DataOptions {
  /**
   * Folder that holds one folder per data set (`mnist`, `fashion-mnist`, `cifar-10-batches-bin`). Default: the
   * environment's `FRUGAL_DATA`.
   */
  readonly folder?: string;
  /** May missing files be downloaded into the cache? Default true. */
  readonly download?: boolean;
  /** Folder for downloads. Default: `frugal` in the XDG cache folder (`XDG_CACHE_HOME`, else `~/.cache`). */
  readonly cache?: string;
  /** Receives a line when files are missing, downloaded or replaced. Default: standard error. */
  readonly log?: (line: string) => void;
}

/** A training set and a test set. */
export interface Split {
  /** Examples to train on. */
  readonly train: Dataset;
  /** Examples to test on; never used for training. */
  readonly test: Dataset;
}

/** Names of {@link DataOptions}, for checkOptions. */
export const DATA_OPTIONS: readonly string[] = ['folder', 'download', 'cache', 'log'];

/** A data set that consists of files in a folder. */
export interface Source {
  /** Its name, for messages. */
  readonly name: string;
  /** Its folder inside the data folder and the cache. */
  readonly folder: string;
  /** Its files; each may also be there with `.gz` behind its name. */
  readonly files: readonly string[];
  /** Downloads the files into a folder, and returns from where. Throws `DATA`. */
  readonly fetch: (folder: string, log: (line: string) => void) => Promise<string>;
}

/** The files of a data set: their folder and what to report as their origin, or why there are none. */
export type Located =
  | { readonly path: string; readonly origin: string }
  | { readonly missing: string; readonly cause?: unknown };

/** The `DATA` error of this package's readers: what was expected of a file, what it holds, what to do. */
export function dataError(
  file: string,
  expected: string,
  received: string,
  remedy: string,
  cause?: unknown,
): FrugalError {
  return new FrugalError('DATA', `${file}: expected ${expected} but received ${received}. ${remedy}`, { cause });
}

/** A message from anything that was thrown, with the causes beneath it (fetch hides the reason in `cause`). */
export function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof AggregateError && error.message === '') return error.errors.map(reason).join(', ');
  return error.cause === undefined ? error.message : `${error.message} (${reason(error.cause)})`;
}

/** Does a file exist? */
export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function cacheFolder(): string {
  const xdg = process.env['XDG_CACHE_HOME'] ?? '';
  // The XDG specification: a relative path is invalid and must be ignored.
  return join(isAbsolute(xdg) ? xdg : join(homedir(), '.cache'), 'frugal');
}

async function lacking(source: Source, path: string): Promise<string[]> {
  const found = await Promise.all(
    source.files.map(async (file) => (await exists(join(path, `${file}.gz`))) || exists(join(path, file))),
  );
  return source.files.filter((_, i) => !found[i]);
}

/** Checks that the options of a loader have the right types and names. Throws `CONFIG`. */
export function checkDataOptions(owner: string, options: DataOptions, known: readonly string[] = DATA_OPTIONS): void {
  checkOptions(owner, options, known);
  const wanted = { folder: 'string', download: 'boolean', cache: 'string', log: 'function' } as const;
  for (const [name, type] of Object.entries(wanted)) {
    const value: unknown = options[name as keyof DataOptions];
    if (value === undefined || (typeof value === type && value !== '')) continue;
    throw new FrugalError(
      'CONFIG',
      `${owner}: expected ${name} to be a ${type} but received ${JSON.stringify(value)}.`,
    );
  }
}

/**
 * Finds the files of a data set: in the named folder, then in the cache, then by downloading them into the cache.
 * It only looks whether files are there; a file that is there but damaged is for the reader to refuse.
 */
export async function locate(source: Source, options: DataOptions): Promise<Located> {
  const { download = true, log = (line: string) => console.error(line) } = options;
  const named = options.folder ?? process.env['FRUGAL_DATA'] ?? '';
  const cache = join(options.cache ?? cacheFolder(), source.folder);
  const tried: string[] = [];
  for (const path of [...(named === '' ? [] : [join(named, source.folder)]), cache]) {
    const missing = await lacking(source, path);
    if (missing.length === 0) return { path, origin: path === cache ? `cache ${path}` : `folder ${path}` };
    tried.push(`${path} lacks ${missing.join(', ')}`);
    if (path !== cache) log(`${source.name}: ${path} lacks ${missing.join(', ')}; trying the cache.`);
  }
  if (!download) return { missing: `${tried.join('; ')}; and downloading is switched off` };
  try {
    await mkdir(cache, { recursive: true });
    return { path: cache, origin: `download from ${await source.fetch(cache, log)}` };
  } catch (error) {
    return {
      missing: `${tried.join('; ')}; and downloading failed: ${reason(error).replace(/\.$/, '')}`,
      cause: error,
    };
  }
}

/** The `DATA` error for a data set that could not be found. */
export function unavailable(
  source: Source,
  found: { readonly missing: string; readonly cause?: unknown },
): FrugalError {
  const put = `Put ${source.files.join(', ')} (plain or .gz) into a folder ${source.folder}`;
  const remedy = `${put} and name its parent by the option folder or by FRUGAL_DATA.`;
  return new FrugalError('DATA', `${source.name} was not found: ${found.missing}. ${remedy}`, { cause: found.cause });
}
