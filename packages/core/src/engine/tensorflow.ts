import { createRequire } from 'node:module';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { healthProblem } from './health.js';
import type { Rejected } from './engine.js';

/** Loads a package by name; replaced in tests. */
export type Importer = (name: string) => Promise<unknown>;

/** What loading TensorFlow's own engine gave. */
export interface TensorflowResult {
  /** The package that works, if one does. */
  readonly name?: string;
  /** One line about it, if it works. */
  readonly detail?: string;
  /** Does it compute on a GPU? */
  readonly gpu: boolean;
  /** What was tried and failed. */
  readonly rejected: readonly Rejected[];
}

const BACKEND = 'tensorflow';

/**
 * Functions that Node 23 dropped from `util` and that tfjs-node 4.22 still calls (tensorflow/tfjs#8609). Added only where
 * they are missing, before the package is loaded.
 */
export function polyfillUtil(
  util: Record<string, unknown> = createRequire(import.meta.url)('node:util') as Record<string, unknown>,
): void {
  const missing: Record<string, (value: unknown) => boolean> = {
    isNullOrUndefined: (value) => value === null || value === undefined,
    isArray: Array.isArray,
    isString: (value) => typeof value === 'string',
    isNumber: (value) => typeof value === 'number',
  };
  for (const [name, f] of Object.entries(missing)) {
    if (typeof util[name] !== 'function') util[name] = f;
  }
}

/** Windows: the library lands beside another ABI folder than the one the loader looks in (tensorflow/tfjs#8579). */
function windowsRemedy(name: string): string | undefined {
  if (process.platform !== 'win32') return undefined;
  try {
    const root = dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
    const misplaced = join(root, 'lib', 'napi-v8', 'tfjs_binding.node');
    return existsSync(misplaced)
      ? `copy ${join(root, 'deps', 'lib', 'tensorflow.dll')} into ${dirname(misplaced)}`
      : undefined;
  } catch {
    return undefined;
  }
}

function explain(name: string, error: unknown): Rejected {
  const { code, message = String(error) } = error as { code?: string; message?: string };
  const line = message.split('\n')[0] as string;
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') {
    return { name, reason: 'not installed', remedy: `npm install ${name} (its install step downloads libtensorflow)` };
  }
  const library = /lib(cudart|cudnn|cublas|cusolver|tensorflow)[\w.-]*/.exec(message)?.[0];
  if (library !== undefined)
    return {
      name,
      reason: `${library} cannot be loaded`,
      remedy: 'install CUDA 11.2 and cuDNN 8.1, which libtensorflow 2.9 needs, or reinstall the package',
    };
  return { name, reason: `it fails to load: ${line}`, remedy: windowsRemedy(name) ?? `npm rebuild ${name}` };
}

/** Which package has registered a backend. TensorFlow.js keeps the first of a name, so the import of another one finds it there. */
const registrants = new WeakMap<object, string>();

interface NodeBackend {
  readonly isUsingGpuDevice?: boolean;
}

/** Loads one package and checks it; leaves the backend that was active before active again when it fails. */
async function attempt(
  name: string,
  load: Importer,
): Promise<Rejected | { name: string; detail: string; gpu: boolean }> {
  const before = tf.getBackend();
  // Of another package, or of this one in an earlier call: an import that is repeated registers nothing.
  const registered = tf.engine().findBackendFactory(BACKEND);
  const failed = async (rejected: Rejected): Promise<Rejected> => {
    const own = tf.engine().findBackendFactory(BACKEND) !== registered;
    if (own) tf.removeBackend(BACKEND);
    if (before && (before !== BACKEND || !own)) await tf.setBackend(before);
    return rejected;
  };
  try {
    polyfillUtil();
    await load(name);
    const factory = tf.engine().findBackendFactory(BACKEND) as object | null | undefined;
    if (factory && factory !== registered) registrants.set(factory, name);
    if (!factory || !(await tf.setBackend(BACKEND)))
      return await failed({ name, reason: 'it registered no backend', remedy: `npm rebuild ${name}` });
    const problem = healthProblem();
    if (problem !== undefined)
      return await failed({
        name,
        reason: `it computes wrongly: ${problem}`,
        remedy: `reinstall ${name}, or leave it out`,
      });
    const gpu = (tf.backend() as unknown as NodeBackend).isUsingGpuDevice === true;
    const owner = registrants.get(factory) ?? name;
    return { name: owner, detail: `${owner} ${gpu ? 'on the GPU' : 'on the CPU'}`, gpu };
  } catch (error) {
    return failed(explain(name, error));
  }
}

/**
 * Loads TensorFlow's own engine from the optional packages, in order, until one works. Never throws: every failure is
 * collected with its reason and remedy.
 */
export async function loadTensorflow(
  packages: readonly string[],
  load: Importer = (name) => import(name),
): Promise<TensorflowResult> {
  const rejected: Rejected[] = [];
  for (const name of packages) {
    const result = await attempt(name, load);
    if ('detail' in result) return { ...result, rejected };
    rejected.push(result);
  }
  return { gpu: false, rejected };
}
