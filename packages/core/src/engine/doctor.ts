import { availableParallelism, totalmem } from 'node:os';
import * as tf from '@tensorflow/tfjs';
import type { Rejected } from './engine.js';
import { ENGINE_NAMES } from './contract.js';
import { EngineError, type EngineName, useEngine } from './ladder.js';

/** One thing that `frugal doctor` looked at. */
export interface Finding {
  /** What was looked at. */
  readonly subject: string;
  /** Does it work? */
  readonly ok: boolean;
  /** What was found, or why not. */
  readonly found: string;
  /** What would make it work. */
  readonly remedy?: string;
}

const failure = ({ name, reason, remedy }: Rejected): Finding => ({
  subject: name.includes('/') ? name : `engine ${name}`,
  ok: false,
  found: reason,
  ...(remedy !== undefined && { remedy }),
});

async function examine(name: EngineName): Promise<Finding[]> {
  try {
    const { detail, rejected } = await useEngine(name, { log: () => undefined });
    return [...rejected.map(failure), { subject: `engine ${name}`, ok: true, found: detail }];
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    return error.rejected.map(failure);
  }
}

/** Looks at everything that decides which engine runs: what was found, what was not, why, and the remedy. */
export async function diagnose(): Promise<Finding[]> {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const fresh = major > 20 || (major === 20 && minor >= 19);
  const findings: Finding[] = [
    {
      subject: 'Node.js',
      ok: fresh,
      found: process.versions.node,
      ...(!fresh && { remedy: 'install Node 20.19 or newer' }),
    },
    {
      subject: 'TensorFlow.js',
      ok: tf.version_core === '4.22.0',
      found: tf.version_core,
      ...(tf.version_core !== '4.22.0' && { remedy: 'install @tensorflow/tfjs 4.22.0' }),
    },
    {
      subject: 'machine',
      ok: true,
      found: `${process.platform} ${process.arch}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    },
  ];
  for (const name of ENGINE_NAMES) findings.push(...(await examine(name)));
  const chosen = await useEngine('auto', { log: () => undefined });
  return [...findings, { subject: 'in use', ok: true, found: chosen.detail }];
}

/** The findings as lines for a terminal. */
export function formatFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ subject }) => subject.length));
  return findings
    .map(
      ({ subject, ok, found, remedy }) =>
        `${ok ? '✓' : '✗'} ${subject.padEnd(width)}  ${found}${remedy === undefined ? '' : `\n  ${' '.repeat(width)}  → ${remedy}`}`,
    )
    .join('\n');
}
