import { type Chart, charts } from './charts.js';
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

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Text as HTML shows it. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character] as string);
}

const STYLE = `
:root { color-scheme: light dark; --paper: #fff; --ink: #1d232b; --soft: #566270; --rule: #dfe3e8; --note: #fff6dd;
  --a: #0067a8; --b: #c44e00; --c: #00805c; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e6e9ed; --soft: #9aa6b3; --rule: #333b45;
  --note: #332b14; --a: #5db4ee; --b: #ff9d5c; --c: #45d3a5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, 'Segoe UI',
  Roboto, 'Helvetica Neue', Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 0.75rem; font-weight: 650; }
h2 { font-size: 1.05rem; margin: 0 0 0.5rem; font-weight: 600; }
.lead { font-size: 1.1rem; max-width: 46rem; margin: 0 0 2rem; }
.note { background: var(--note); border-radius: 6px; padding: 0.6rem 0.9rem; margin: 0 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.5rem 0.7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-weight: 500; color: var(--soft); font-size: 0.88rem; border-bottom-color: var(--soft); }
tbody th { font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 2.5rem 2rem;
  margin: 2.75rem 0; }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 0.85rem; margin-top: 0.4rem; }
footer { border-top: 1px solid var(--rule); padding-top: 1.25rem; color: var(--soft); font-size: 0.88rem; }
footer h2 { color: var(--ink); font-size: 0.95rem; }
footer p { margin: 0 0 0.6rem; max-width: 52rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1.2rem; margin: 1.25rem 0 0; font-size: 0.92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }`;

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

function tableHtml(rows: readonly (readonly string[])[]): string {
  const [head = [], ...body] = rows;
  const header = head.map((cell) => `<th scope="col">${escapeHtml(cell)}</th>`).join('');
  const lines = body.map(([first = '', ...cells]) => {
    const values = cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join('');
    return `<tr><th scope="row">${escapeHtml(first)}</th>${values}</tr>`;
  });
  return `<div class="wide"><table><thead><tr>${header}</tr></thead><tbody>${lines.join('')}</tbody></table></div>`;
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
  const { machine, versions, commit, started } = comparison.results;
  const described = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return [
    ['Engine', comparison.engine],
    ['Data', source(comparison.data)],
    ['Training', schedule(comparison)],
    ['Machine', `${machine['processor'] ?? 'unknown'}, ${machine['cores'] ?? '?'} cores, ${machine['system'] ?? ''}`],
    ['Versions', `${described.join(', ')}, commit ${commit}`],
    ['Started', started],
  ];
}

const figureHtml = ({ title, caption, svg }: Chart): string =>
  `<figure><h2>${escapeHtml(title)}</h2>${svg}<figcaption>${escapeHtml(caption)}</figcaption></figure>`;

/** The whole report as one HTML page that asks for nothing from outside. */
export function reportHtml(comparison: Comparison): string {
  const title = escapeHtml(heading(comparison));
  const notes = comparison.notes.map((note) => `<p class="note">${escapeHtml(note)}</p>`).join('\n');
  const list = facts(comparison).map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${STYLE}
</style>
</head>
<body>
<main>
<h1>${title}</h1>
<p class="lead">${escapeHtml(lead(comparison))}</p>
${notes}
${tableHtml(summaryRows(comparison.runs))}
<dl>${list.join('')}</dl>
<div class="charts">
${charts(comparison.runs).map(figureHtml).join('\n')}
</div>
<footer>
<h2>How this was measured</h2>
${footnotes(comparison)
  .map((note) => `<p>${escapeHtml(note)}</p>`)
  .join('\n')}
</footer>
</main>
</body>
</html>
`;
}
