import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { FrugalError } from '@frugal/core';
import { writeAtomically } from './file.js';
import { dataError, reason } from './source.js';

/** A file that can be downloaded. */
export interface Remote {
  /** Addresses, tried in turn. */
  readonly urls: readonly string[];
  /** Its length in bytes. */
  readonly bytes: number;
  /** Its MD5, as its publishers give it: against damage, not against an attacker. */
  readonly md5: string;
}

/** How long a download waits. */
export interface Patience {
  /** For the answer's header, in milliseconds. Default 5000. */
  readonly connect?: number;
  /** For the next bytes, in milliseconds. Default 20000. */
  readonly stall?: number;
}

async function fetchInto(
  path: string,
  url: string,
  remote: Remote,
  { connect = 5000, stall = 20_000 }: Patience,
): Promise<void> {
  const control = new AbortController();
  const expire = (ms: number, what: string): NodeJS.Timeout =>
    setTimeout(() => control.abort(new Error(`no ${what} within ${ms / 1000} s`)), ms);
  let timer = expire(connect, 'answer');
  try {
    const response = await fetch(url, { signal: control.signal, headers: { 'accept-encoding': 'identity' } });
    clearTimeout(timer);
    timer = expire(stall, 'bytes');
    if (!response.ok || response.body === null) throw new Error(`HTTP ${response.status}`);
    const body: AsyncIterable<Uint8Array> = response.body;
    await writeAtomically(path, async (handle) => {
      const hash = createHash('md5');
      let length = 0;
      for await (const chunk of body) {
        clearTimeout(timer);
        timer = expire(stall, 'further bytes');
        length += chunk.length;
        if (length > remote.bytes) break;
        hash.update(chunk);
        await handle.writeFile(chunk);
      }
      const md5 = hash.digest('hex');
      if (length === remote.bytes && md5 === remote.md5) return;
      const received = length > remote.bytes ? 'more bytes' : `${length} bytes, MD5 ${md5}`;
      throw dataError(
        url,
        `${remote.bytes} bytes, MD5 ${remote.md5}`,
        received,
        'The server sent another or a damaged file.',
      );
    });
  } finally {
    clearTimeout(timer);
    control.abort();
  }
}

/**
 * Downloads a file from the first of its addresses that gives it, checks its length and MD5 while it comes, and only
 * then puts it in place. Returns the host.
 *
 * @throws FrugalError `DATA` if no address gives the file; the message names each one's reason
 */
export async function download(
  path: string,
  remote: Remote,
  log: (line: string) => void,
  patience: Patience = {},
): Promise<string> {
  const failures: string[] = [];
  for (const url of remote.urls) {
    log(`Downloading ${url} (${(remote.bytes / 1e6).toFixed(1)} MB) into ${dirname(path)}`);
    try {
      await fetchInto(path, url, remote, patience);
      return new URL(url).host;
    } catch (error) {
      failures.push(`${url}: ${reason(error)}`);
    }
  }
  throw new FrugalError('DATA', `No address gives the file. ${failures.join('; ')}.`);
}
