import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inFolder } from '../testing/files.js';
import { download } from './download.js';

const BODY = Buffer.from('the quick brown fox'.repeat(1000));
const MD5 = createHash('md5').update(BODY).digest('hex');
const lines: string[] = [];
const log = (line: string): void => void lines.push(line);

describe('download', () => {
  let server: Server;
  let base = '';

  beforeAll(async () => {
    server = createServer((request, response) => {
      if (request.url === '/good') response.end(BODY);
      else if (request.url === '/short') response.end(BODY.subarray(5));
      else if (request.url === '/long') response.end(Buffer.concat([BODY, BODY]));
      else if (request.url === '/other') response.end(Buffer.alloc(BODY.length));
      else if (request.url === '/stall') response.write(BODY.subarray(0, 100));
      else if (request.url === '/cut')
        response
          .writeHead(200, { 'content-length': BODY.length })
          .write(BODY.subarray(0, 100), () => response.destroy());
      else if (request.url !== '/silent') response.writeHead(404).end();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  const get = (folder: string, ...names: string[]): Promise<string> =>
    download(
      join(folder, 'file'),
      { urls: names.map((name) => `${base}/${name}`), bytes: BODY.length, md5: MD5 },
      log,
      {
        connect: 300,
        stall: 300,
      },
    );

  it('puts a checked file in place, and says from where', () =>
    inFolder(async (folder) => {
      expect(await get(folder, 'good')).toMatch(/^127\.0\.0\.1:\d+$/);
      expect(readFileSync(join(folder, 'file')).equals(BODY)).toBe(true);
      expect(readdirSync(folder)).toEqual(['file']);
      expect(lines.at(-1)).toContain('/good');
    }));

  it('goes on to the next address', () =>
    inFolder(async (folder) => {
      await get(folder, 'missing', 'other', 'good');
      expect(existsSync(join(folder, 'file'))).toBe(true);
    }));

  it.each([
    ['missing', 'HTTP 404'],
    ['short', `but received ${BODY.length - 5} bytes`],
    ['long', 'but received more bytes'],
    ['other', 'but received 19000 bytes, MD5'],
    ['stall', 'no further bytes within 0.3 s'],
    ['silent', 'no answer within 0.3 s'],
    ['cut', '/cut: '],
  ])('refuses %s with DATA and leaves nothing behind', (name, reason) =>
    inFolder(async (folder) => {
      await expect(get(folder, name)).rejects.toMatchObject({
        code: 'DATA',
        message: expect.stringContaining(reason) as string,
      });
      expect(readdirSync(folder)).toEqual([]);
    }),
  );

  it('names the reason when no server answers', () =>
    inFolder(async (folder) => {
      const remote = { urls: ['http://127.0.0.1:1/x'], bytes: 1, md5: MD5 };
      await expect(download(join(folder, 'x'), remote, log)).rejects.toThrow(/127\.0\.0\.1:1\/x: fetch failed \(.+\)/);
    }));
});
