import { charts } from './charts.js';
import { pageHtml } from './page.js';
import { machineFacts } from './results.js';
import {
  type Comparison,
  count,
  fallbackNames,
  type Figure,
  figuresOf,
  grouped,
  percent,
  schedule,
  source,
  summaryRows,
} from './summary.js';

const COUNTS = ['no way', 'one way', 'two ways', 'three ways'];

/** Title of the report. */
export function heading({ data, runs }: Comparison): string {
  return `LeNet learns ${data.name}, ${COUNTS[runs.length] ?? `${runs.length} ways`}`;
}

const reached = ({ accuracy }: Figure): string => (accuracy === undefined ? 'no test' : percent(accuracy, 2));

function compared(figure: Figure, steady: boolean): string {
  const { title, share, speedUp } = figure;
  const speed = steady ? ` at ${speedUp.toFixed(2)} times the exact speed` : '';
  return `${title} did ${percent(share, 0)} of the multiply-adds${speed} and reached ${reached(figure)}`;
}

/** The sentence that sums it all up; figures only, whichever way they point, and no speed that was disturbed. */
export function lead({ engine, runs, epochs, data, steady }: Comparison): string {
  const [exact, ...others] = figuresOf(runs);
  const start = `On ${data.name} with the engine “${engine}”, ${count(epochs, 'epoch')} over ${grouped(data.examples)} examples`;
  if (!exact) return `${start}: nothing was completed.`;
  const rest = others.map((figure) => `; ${compared(figure, steady)}`).join('');
  return `${start}: exact training reached ${reached(exact)} test accuracy${rest}.`;
}

/** What no method reached: weights outside all sites, and sites where a sampled run left nothing out. */
export function uncoveredNotes({ runs }: Comparison): string[] {
  const weights = new Map(
    runs.flatMap(({ report }) => report.uncovered.map(({ weight, reason }) => [weight, reason] as const)),
  );
  const left = new Map<string, string[]>();
  for (const { title, report } of runs) {
    const names = report.sites.filter(({ kept }) => kept === 1).map(({ site }) => site);
    const key = names.join(', ');
    if (names.length > 0 && names.length < report.sites.length) left.set(key, [...(left.get(key) ?? []), title]);
  }
  return [
    weights.size === 0
      ? 'Every trainable weight belongs to a layer whose products can be replaced.'
      : `Not covered: ${[...weights].map(([weight, reason]) => `${weight} (${reason})`).join('; ')}.`,
    ...[...left].map(([sites, titles]) => `All products were exact at ${sites} (${titles.join(', ')}).`),
  ];
}

function footnotes(comparison: Comparison): string[] {
  const fallbacks = fallbackNames(comparison.runs);
  return [
    'The methods ran one after the other, once each, from the same first weights, in the same order of examples; a few steps of each warmed the engine up. Times are those of the training steps, without evaluation; the table has the median epoch. Single runs in a row are at the mercy of whatever else the machine does: the interleaved measurements with several seeds are those of “pnpm bench mnist”.',
    'A multiply-add is one product and one sum in a convolution or dense layer, forward and backward, as counted at each call. What sampling itself costs (norms, selection, gathering) is in the times and not in these counts. Accuracy is measured on the test set with exact products.',
    ...uncoveredNotes(comparison),
    fallbacks.length === 0
      ? 'No kernel fell back to plain JavaScript, as far as the engine counts it.'
      : `Kernels that fell back to plain JavaScript, with calls: ${fallbacks.join(', ')}.`,
  ];
}

function facts(comparison: Comparison): [string, string][] {
  return [
    ['Engine', comparison.engine],
    ['Data', source(comparison.data)],
    ['Training', schedule(comparison)],
    ...machineFacts(comparison.results),
    ['Started', comparison.results.started],
  ];
}

/** The whole report as one HTML page that asks for nothing from outside. */
export function reportHtml(comparison: Comparison): string {
  return pageHtml({
    title: heading(comparison),
    lead: lead(comparison),
    notes: comparison.notes,
    tables: [summaryRows(comparison.runs)],
    facts: facts(comparison),
    charts: charts(comparison.runs),
    footnotes: footnotes(comparison),
  });
}
