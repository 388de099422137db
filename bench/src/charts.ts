import {
  axis,
  type Chart,
  endLabel,
  FAINT,
  gridBelow,
  INK,
  LEGEND,
  logTicks,
  niceStep,
  render,
  SERIES,
  style,
  SYMBOLS,
  xAxis,
} from './drawing.js';
import { type Point, smooth, thin } from './curves.js';
import { amount, type MethodRun, percent } from './summary.js';

const POINTS = 300;
/** Width of a bar chart's symbols in the legend. */
const BAR_SYMBOL = 14;

const titleOf = ({ title }: MethodRun): string => title;

function lossChart(runs: readonly MethodRun[], key: 'seconds' | 'step', name: string): string {
  const curves = runs.map(({ points }) => thin(smooth(points, window(points)), POINTS));
  const losses = curves.flatMap((curve) => curve.map(({ loss }) => Math.log10(loss))).filter(Number.isFinite);
  const ticks = losses.length === 0 ? [0.1, 1] : logTicks(10 ** Math.min(...losses), 10 ** Math.max(...losses));
  const at = ticks.map(Math.log10);
  const last = Math.max(...curves.map((curve) => curve.at(-1)?.[key] ?? 1));
  const step = niceStep(last, 6);
  const label = (value: number): string => String(Number((10 ** value).toPrecision(1)));
  return render(
    {
      // A line without symbols looks so in the legend, too.
      legend: { ...LEGEND, itemStyle: { opacity: 0 } },
      grid: gridBelow(runs.map(titleOf)),
      xAxis: xAxis(name, { type: 'value', min: 0, max: last, interval: step, axisLabel: endLabel(last, step) }),
      yAxis: axis('training loss', {
        type: 'value',
        min: at[0],
        max: at.at(-1),
        nameGap: 40,
        axisTick: { show: false, customValues: at },
        axisLabel: { color: INK, customValues: at, formatter: label },
      }),
      series: runs.map(({ title }, i) => ({
        ...style(i),
        type: 'line',
        name: title,
        symbol: 'none',
        data: (curves[i] as Point[]).map((point) => [point[key], Math.log10(Math.max(point.loss, 1e-12))]),
      })),
    },
    `training loss over ${name}`,
  );
}

const window = (points: readonly Point[]): number => Math.max(5, Math.round(points.length / 30));

function accuracyChart(runs: readonly MethodRun[]): string {
  const curves = runs.map(({ report }) =>
    report.epochs.map(({ epoch, validation }) => [String(epoch), 100 * (validation?.accuracy ?? Number.NaN)] as const),
  );
  const values = curves.flat().map(([, value]) => value);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const step = niceStep(Math.max(high - low, 0.2), 5);
  return render(
    {
      legend: LEGEND,
      grid: gridBelow(runs.map(titleOf)),
      xAxis: xAxis('epoch', { type: 'category', data: (curves[0] ?? []).map(([epoch]) => epoch), boundaryGap: true }),
      yAxis: axis('test accuracy, %', {
        type: 'value',
        min: Math.max(0, Math.floor(low / step) * step),
        max: Math.min(100, Math.ceil(high / step) * step),
        interval: step,
        nameGap: 40,
        axisLabel: { color: INK, formatter: (value: number) => value.toFixed(step < 1 ? 1 : 0) },
      }),
      series: runs.map(({ title }, i) => ({
        ...style(i),
        type: 'line',
        name: title,
        symbol: SYMBOLS[i % 3],
        symbolSize: 9,
        data: (curves[i] as (readonly [string, number])[]).map(([, value]) => value),
      })),
    },
    'test accuracy over epochs',
  );
}

/** Done solid, saved outlined: the two differ without colour. */
function barPair(run: MethodRun, index: number, most: number): Record<string, unknown>[] {
  const colour = SERIES[index % 3];
  const common = { type: 'bar', stack: run.title, barMaxWidth: 15, barGap: '25%', emphasis: { disabled: true } };
  const sites = run.report.sites;
  return [
    { ...common, name: run.title, color: colour, data: sites.map(({ done }) => done) },
    {
      ...common,
      name: `${run.title} saved`,
      itemStyle: { color: 'transparent', borderColor: colour, borderType: 'dashed', borderWidth: 1 },
      data: sites.map(({ done, exact }) => exact - done),
    },
    // Carries the label at the end of the bar.
    {
      ...common,
      name: `${run.title} label`,
      itemStyle: { color: 'transparent' },
      data: sites.map(() => most * 1e-9),
      label: {
        show: true,
        position: 'right',
        color: INK,
        fontSize: 11,
        formatter: ({ dataIndex }: { dataIndex: number }) => {
          const site = sites[dataIndex];
          return site ? `${amount(site.done)}${site.done === site.exact ? '' : `, ${percent(site.kept, 0)}`}` : '';
        },
      },
    },
  ];
}

function multiplyAddsChart(runs: readonly MethodRun[]): string {
  const sites = runs[0]?.report.sites ?? [];
  const most = Math.max(...sites.map(({ exact }) => exact));
  const step = niceStep(most, 4);
  return render(
    {
      legend: { ...LEGEND, itemWidth: BAR_SYMBOL, data: runs.map(({ title }) => ({ name: title, icon: 'rect' })) },
      grid: { ...gridBelow(runs.map(titleOf), BAR_SYMBOL), right: 84 },
      xAxis: xAxis('multiply-adds of the whole run, G', {
        type: 'value',
        max: most,
        interval: step,
        axisLabel: { ...endLabel(most, step), formatter: (value: number) => String(Number((value / 1e9).toFixed(3))) },
        splitLine: { lineStyle: { color: FAINT } },
      }),
      yAxis: axis('', { type: 'category', inverse: true, data: sites.map(({ site }) => site) }),
      series: runs.flatMap((run, index) => barPair(run, index, most)),
    },
    'multiply-adds per layer, done and saved',
  );
}

/** The charts of the report. */
export function charts(runs: readonly MethodRun[]): Chart[] {
  const steps = Math.max(...runs.map(({ points }) => window(points)));
  const smoothed = `Moving average over about ${steps} steps, logarithmic scale.`;
  return [
    {
      title: 'Training loss over time',
      caption: `${smoothed} Evaluation is not counted.`,
      svg: lossChart(runs, 'seconds', 'seconds of training'),
    },
    { title: 'Training loss over steps', caption: smoothed, svg: lossChart(runs, 'step', 'steps') },
    {
      title: 'Test accuracy',
      caption: 'After each epoch, with exact products. The axis does not start at zero.',
      svg: accuracyChart(runs),
    },
    {
      title: 'Multiply-adds per layer',
      caption: 'Solid: done. Dashed outline: saved against exact training.',
      svg: multiplyAddsChart(runs),
    },
  ];
}
