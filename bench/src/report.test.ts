import type { TrainReport } from '@frugal/core';
import { describe, expect, it } from 'vitest';
import { affordable, type Costs, roundSeconds } from './budget.js';
import { logTicks, niceStep } from './drawing.js';
import { recorder, smooth, thin } from './curves.js';
import { quickstartOptions, UsageError } from './quickstart-options.js';
import { escapeHtml } from './page.js';
import { lead, reportHtml, uncoveredNotes } from './report.js';
import { amount, type Comparison, figuresOf, type MethodRun, settings, summaryRows, unsteadyNotes } from './summary.js';

function run(title: string, seconds: number, kept: number, changes: Partial<TrainReport> = {}): MethodRun {
  const rule = kept === 1 ? 'exact' : 'topK';
  const report: TrainReport = {
    title,
    data: { name: 'toy', origin: 'made' },
    epochs: [1, 2].map((epoch) => ({
      epoch,
      loss: 1 / epoch,
      validation: { loss: 1 / epoch, accuracy: 0.9 + epoch / 40 },
      seconds: seconds / 2,
      hyperparameters: {},
    })),
    steps: 40,
    seconds,
    sites: [
      { site: 'conv1', rule: 'exact', done: 1e9, exact: 1e9, kept: 1 },
      { site: 'dense1', rule, done: 8e9 * kept, exact: 8e9, kept },
    ],
    uncovered: [],
    of: () => {
      throw new Error('nothing to tell');
    },
    engine: 'test engine',
    fallbacks: {},
    ...changes,
  };
  const points = Array.from({ length: 40 }, (_, i) => ({
    step: i + 1,
    seconds: ((i + 1) * seconds) / 40,
    loss: 2 / (i + 1),
  }));
  return { title, report, points };
}

function comparison(changes: Partial<Comparison> = {}): Comparison {
  return {
    runs: [run('exact', 8, 1), run('top-k 0.5', 5, 0.5), run('top-k 0.5 + Demon', 4, 0.5)],
    data: { name: 'MNIST', origin: 'folder /a & <b>', examples: 20_000, tests: 10_000 },
    epochs: 2,
    batch: 64,
    seed: 7,
    engine: 'native, 2 threads',
    notes: [],
    steady: true,
    results: {
      machine: { processor: 'A processor', cores: 2, system: 'linux x64' },
      versions: { node: '20.0.0' },
      commit: 'abc',
      started: '2026-01-01T00:00:00.000Z',
      seconds: 1,
    },
    ...changes,
  };
}

describe('the table', () => {
  it('holds the figures of every run', () => {
    const [head, exact, sampled] = summaryRows(comparison().runs);
    expect(head).toHaveLength(7);
    expect(exact).toEqual(['exact', '4.00', '1.00 ×', '95.00 %', '9.00 G', '100.0 %', '0']);
    expect(sampled).toEqual(['top-k 0.5', '2.50', '1.60 ×', '95.00 %', '5.00 G', '55.6 %', '0']);
  });

  it('counts fallbacks and names what it was measured with', () => {
    const runs = [run('exact', 8, 1, { fallbacks: { Pow: 1200, Sin: 1 } })];
    expect(figuresOf(runs)[0]?.fallbacks).toBe(1201);
    expect(reportHtml(comparison({ runs }))).toContain('Pow (1,200), Sin (1)');
    expect(settings(comparison()).join('\n')).toMatch(
      /native[^]*MNIST, folder[^]*2 epochs × 20,000 .* batch 64, seed 7/,
    );
  });

  it('is doubted when equal epochs take unequal times', () => {
    const disturbed = run('exact', 8, 1);
    const epochs = disturbed.report.epochs.map((epoch, i) => ({ ...epoch, seconds: 4 + 2 * i }));
    expect(unsteadyNotes([run('top-k 0.5', 8, 0.5)])).toEqual([]);
    const [note] = unsteadyNotes([{ ...disturbed, report: { ...disturbed.report, epochs } }]);
    expect(note).toMatch(/exact took 4.0 to 6.0 s/);
  });

  it('writes multiply-adds with digits that suit their size', () => {
    expect([2e8, 12.34e9, 2469.6e9].map(amount)).toEqual(['0.20 G', '12.3 G', '2,470 G']);
  });
});

describe('the report', () => {
  const html = reportHtml(comparison({ notes: ['x < y & "z"'] }));

  it('escapes everything that is not its own', () => {
    expect(escapeHtml(`<a href="x">'&'</a>`)).toBe('&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;');
    expect(html).toContain('x &lt; y &amp; &quot;z&quot;');
    expect(html).toContain('folder /a &amp; &lt;b&gt;');
    const title = '<script>alert(1)</script>';
    expect(reportHtml(comparison({ runs: [run(title, 8, 1)] }))).not.toContain('<script');
  });

  it('asks for nothing from outside', () => {
    expect(html).not.toMatch(/https?:|\b(src|href)=|url\((?!#)|@import|<(script|link|iframe|img|image)\b/);
  });

  it('has four charts, each drawn for both colour schemes and with words of its own', () => {
    const drawings = html.match(/<svg [^]*?<\/svg>/g) ?? [];
    expect(drawings).toHaveLength(4);
    for (const svg of drawings) {
      expect(svg).toMatch(/^<svg role="img" aria-label="[a-z]/);
      for (const colour of ['--ink', '--a', '--b', '--c']) expect(svg).toContain(`var(${colour})`);
      expect(svg).not.toMatch(/#0[1-5]0[1-5]0[1-5]|NaN|undefined/);
    }
  });

  it('does not depend on colour alone', () => expect(html.match(/stroke-dasharray/g)?.length).toBeGreaterThan(6));

  it('says in its lead what each method did, also when it lost', () => {
    expect(lead(comparison())).toContain('top-k 0.5 did 56 % of the multiply-adds at 1.60 times the exact speed');
    const slower = comparison({ runs: [run('exact', 4, 1), run('top-k 0.5', 5, 0.5)] });
    expect(lead(slower)).toContain('at 0.80 times the exact speed');
    expect(reportHtml(slower)).toContain('LeNet learns MNIST, two ways');
    expect(lead(comparison({ steady: false }))).not.toContain('speed');
  });

  it('names weights and layers that no method reached', () => {
    expect(uncoveredNotes(comparison())).toEqual([
      'Every trainable weight belongs to a layer whose products can be replaced.',
      'All products were exact at conv1 (top-k 0.5, top-k 0.5 + Demon).',
    ]);
    const uncovered = [{ weight: 'lstm/kernel', reason: 'recurrent' }];
    const [first] = uncoveredNotes(comparison({ runs: [run('exact', 8, 1, { uncovered })] }));
    expect(first).toBe('Not covered: lstm/kernel (recurrent).');
  });

  it('stands a run of one epoch and a loss of zero', () => {
    const one = run('exact', 8, 1);
    const report = { ...one.report, epochs: one.report.epochs.slice(0, 1) };
    const points = [{ step: 1, seconds: 0.1, loss: 0 }];
    expect(reportHtml(comparison({ runs: [{ ...one, report, points }] }))).not.toContain('NaN');
  });
});

describe('axes', () => {
  it('step by 1, 2 or 5', () => expect([7, 32, 0.9, 100].map((range) => niceStep(range, 5))).toEqual([2, 10, 0.2, 20]));
  it('enclose a logarithmic range', () => {
    expect(logTicks(0.03, 2.4)).toEqual([0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]);
    expect(logTicks(0.1, 1)).toEqual([0.1, 0.2, 0.5, 1]);
  });
});

describe('the learning curve', () => {
  it('gives back the loss of each step, across epochs and a last batch that is not full', () => {
    const seen: string[] = [];
    const { progress, points } = recorder({ examples: 5, batch: 2 }, 'x', ({ kind }) => seen.push(kind));
    const losses = [3, 1, 2, 0.5, 4, 1];
    for (const epoch of [1, 2]) {
      const base = { epoch, epochs: 2, batches: 3 };
      let sum = 0;
      for (const [i, size] of [2, 2, 1].entries()) {
        sum += (losses[3 * (epoch - 1) + i] as number) * size;
        const loss = sum / Math.min(2 * (i + 1), 5);
        progress({ ...base, kind: 'step', batch: i + 1, seconds: i + 1, loss });
      }
      progress({ ...base, kind: 'epoch', batch: 3, seconds: 3, loss: sum / 5 });
    }
    for (const [i, { loss }] of points.entries()) expect(loss).toBeCloseTo(losses[i] as number, 12);
    expect(points.map(({ step, seconds }) => [step, seconds])).toEqual([1, 2, 3, 4, 5, 6].map((n) => [n, n]));
    expect(seen).toHaveLength(8);
  });

  it('is smoothed without moving a constant, and thinned without losing its end', () => {
    const flat = Array.from({ length: 1001 }, (_, i) => ({ step: i + 1, seconds: i, loss: 2 }));
    for (const { loss } of smooth(flat, 20)) expect(loss).toBeCloseTo(2, 10);
    const thinned = thin(flat, 100);
    expect(thinned.length).toBeLessThanOrEqual(100);
    expect(thinned.at(-1)?.step).toBe(1001);
  });
});

describe('the budget', () => {
  const wanted = { examples: 20_000, tests: 10_000 };
  const fast: Costs = { step: [0.03, 0.02, 0.02], test: 0.00015 };
  const slow: Costs = { step: [0.25, 0.2, 0.2], test: 0.001 };

  it('adds up steps and tests of all methods', () => {
    expect(roundSeconds({ step: [1, 2], test: 0.01 }, { examples: 65, tests: 100 }, 64)).toBeCloseTo(2 + 4 + 2, 10);
  });

  it('keeps all data on a fast engine: 3 epochs on slow cores take less than 3 minutes', () => {
    expect(affordable(fast, wanted, 64)).toBe(wanted);
    expect(3 * roundSeconds(fast, wanted, 64)).toBeLessThan(180);
  });

  it('takes less data on a slow one, in whole batches, and then holds', () => {
    const chosen = affordable(slow, wanted, 64);
    expect(chosen.examples % 64).toBe(0);
    expect(chosen.examples).toBeGreaterThan(64 * 10);
    expect(roundSeconds(slow, chosen, 64)).toBeLessThanOrEqual(50);
  });

  it('never takes next to nothing, nor more than there is', () => {
    const crawling = { step: [9, 9, 9], test: 1 };
    expect(affordable(crawling, wanted, 64)).toEqual({ examples: 640, tests: 500 });
    expect(affordable(crawling, { examples: 100, tests: 50 }, 64)).toEqual({ examples: 100, tests: 50 });
  });
});

describe('the options', () => {
  it('have defaults', () => {
    expect(quickstartOptions([])).toEqual({ epochs: 3, batch: 64, seed: 1, report: 'report.html' });
    expect(quickstartOptions(['--', '--all'])).toMatchObject({ examples: Number.POSITIVE_INFINITY });
    expect(quickstartOptions(['--examples', '99', '--seed=0'])).toMatchObject({ examples: 99, seed: 0 });
    expect(quickstartOptions(['-h'])).toBe('help');
  });

  it.each([
    [['--epochs', '0'], /--epochs: expected a whole number from 1 on, received "0"/],
    [['--batch', '1e3'], /--batch/],
    [['--seed', 'x'], /--seed/],
    [['--all', '--examples', '5'], /one of them/],
    [['--speed', '5'], /--speed/],
    [['more'], /more/],
    [['--report', ''], /--report/],
  ])('refuse %j', (args, message) => {
    expect(() => quickstartOptions(args)).toThrow(UsageError);
    expect(() => quickstartOptions(args)).toThrow(message);
  });
});
