import { describe, expect, it } from 'vitest';
import { GRID, gridBelow } from './drawing.js';
import { linesChart } from './lines.js';
import { pageHtml } from './page.js';

const chart = (log?: { x?: boolean; y?: boolean }) =>
  linesChart({
    title: 'A <title>',
    caption: 'what it shows',
    x: 'steps',
    y: 'error',
    lines: [
      {
        name: 'mean',
        points: [
          [1, 1],
          [10, 2],
          [100, 4],
        ],
        band: [0.5, 0.5, 3],
      },
      { name: 'seen', points: [[1, 1.5]], scatter: true },
    ],
    ...(log && { log }),
  });

describe('a chart of lines', () => {
  it('has axes that hold the band, a filled band, and the names of its lines', () => {
    const { svg } = chart();
    expect(svg).toContain('mean');
    expect(svg).toContain('seen');
    // 4 + 3 is within the axis, which ends at 8 for steps of 2.
    expect(svg).toContain('>8</text>');
    expect(svg).toMatch(/fill="var\(--a\)" fill-opacity="0.18"/);
  });

  it('labels logarithmic axes by their numbers', () => {
    const { svg } = linesChart({
      ...chart(),
      x: 'x',
      y: 'y',
      log: { y: true },
      lines: [
        {
          name: 'a',
          points: [
            [0, 1e-5],
            [1, 1e-3],
          ],
        },
      ],
    });
    expect(svg).toContain('>0.0001</text>');
    expect(svg).not.toMatch(/9999/);
  });
});

describe('a page', () => {
  it('holds tables, facts, charts and footnotes, escaped, and asks for nothing from outside', () => {
    const html = pageHtml({
      title: 'a < b',
      lead: 'lead & more',
      notes: ['note'],
      tables: [
        [
          ['what', 'value'],
          ['<x>', '1'],
        ],
      ],
      facts: [['Seed', '1']],
      charts: [chart()],
      footnotes: ['how'],
    });
    for (const text of [
      '<h1>a &lt; b</h1>',
      'lead &amp; more',
      '&lt;x&gt;',
      '<dt>Seed</dt><dd>1</dd>',
      'A &lt;title&gt;',
      'how',
    ])
      expect(html).toContain(text);
    expect(html).not.toMatch(/(src|href)=/);
  });
});

describe('the place of the axes', () => {
  const name = 'SGD with momentum, rate 0.05, 10 epochs';
  it.each([
    ['no row more for short names', ['exact', 'one'], 0],
    ['one row for each long name after the first', [name, name, name], 60],
  ])('leaves %s', (_, names, below) => {
    expect(gridBelow(names).top).toBe(GRID.top + below);
  });
});
