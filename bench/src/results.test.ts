import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { beginResults, busyNote, median, round, table, writeResults } from './results.js';

describe('results', () => {
  it('take the middle, whatever the order, and leave the values alone', () => {
    const values = [9, 1, 10, 2];
    expect(median(values)).toBe(5.5);
    expect(median([10, 9, 1])).toBe(9);
    expect(values).toEqual([9, 1, 10, 2]);
  });

  it('are rounded to numbers', () => {
    expect(round(0.123456)).toBe(0.1235);
    expect(round(2 / 3, 1)).toBe(0.7);
  });

  it('name machine, versions and seed, and survive a file', () => {
    const results = beginResults('test', 5, { other: '1.2' })({ value: 1.5 });
    expect(results).toMatchObject({ bench: 'test', seed: 5, figures: { value: 1.5 } });
    expect(results.versions).toMatchObject({ node: process.versions.node, other: '1.2' });
    expect(results.machine['cores']).toBeGreaterThan(0);
    const folder = mkdtempSync(join(tmpdir(), 'frugal-results-'));
    try {
      const path = join(folder, 'a', 'b.json');
      writeResults(path, results);
      expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(results);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('the load', () => {
  it('is worth a word when it takes the cores', () => {
    expect(busyNote(1.4, 2)).toBeUndefined();
    expect(busyNote(1.6, 2)).toContain('load 1.6');
  });
});

describe('a table', () => {
  it('aligns the first column to the left and the others to the right', () => {
    const rows = [
      ['name', 'x'],
      ['a', '10'],
      ['longer', '2'],
    ];
    expect(table(rows)).toBe(['name     x', '──────  ──', 'a       10', 'longer   2'].join('\n'));
  });

  it('stands missing cells', () => expect(table([['a', 'b'], ['c']])).toBe('a  b\n─  ─\nc'));
});
