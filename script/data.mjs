import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');

/** Real data that lie in or beside the checkout are used where FRUGAL_DATA names no other folder. */
export function findData(env = process.env) {
  if (env.FRUGAL_DATA !== undefined) return;
  const folder = ['data', '../data', '../shared/data']
    .map((path) => resolve(root, path))
    .find((path) => existsSync(join(path, 'mnist')));
  if (folder !== undefined) env.FRUGAL_DATA = folder;
}
