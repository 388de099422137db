import { axis, type Chart, FAINT, gridBelow, INK, LEGEND, niceStep, render, SERIES, style, xAxis } from './drawing.js';

/** One curve, or a cloud of points. */
export interface Line {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** Half the height of a band around the curve, point by point. */
  readonly band?: readonly number[];
  /** Points without a line between them. */
  readonly scatter?: boolean;
}

/** A chart of curves over one axis. */
export interface LinesChart {
  readonly title: string;
  readonly caption: string;
  readonly x: string;
  readonly y: string;
  readonly lines: readonly Line[];
  /** Logarithmic axes. Default: none. */
  readonly log?: { readonly x?: boolean; readonly y?: boolean };
}

type Series = Record<string, unknown>;

/** The band: its lower edge invisible, its height stacked on it. */
function bandSeries({ name, points, band = [] }: Line, index: number): Series[] {
  const common = {
    type: 'line',
    symbol: 'none',
    stack: `${name} band`,
    stackStrategy: 'all',
    lineStyle: { opacity: 0 },
  };
  const colour = SERIES[index % SERIES.length];
  const low = points.map(([x, y], i) => [x, y - (band[i] ?? 0)]);
  const height = points.map(([x], i) => [x, 2 * (band[i] ?? 0)]);
  return [
    { ...common, name: `${name} low`, data: low },
    { ...common, name: `${name} band`, data: height, areaStyle: { color: colour, opacity: 0.18 } },
  ];
}

function seriesOf(line: Line, index: number): Series[] {
  const { name, points, scatter = false } = line;
  const own = scatter
    ? { ...style(index), type: 'scatter', symbolSize: 4, name, data: points }
    : { ...style(index), type: 'line', name, symbol: 'none', data: points };
  return line.band ? [...bandSeries(line, index), own] : [own];
}

function scale(values: readonly number[], log: boolean): Series {
  const format = (value: number): string => String(Number(value.toPrecision(6)));
  if (log) return { type: 'log', minorTick: { show: false }, axisLabel: { color: INK, formatter: format } };
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const step = niceStep(Math.max(high - low, 1e-9), 6);
  return {
    type: 'value',
    min: Math.floor(low / step + 1e-9) * step,
    max: Math.ceil(high / step - 1e-9) * step,
    interval: step,
    axisLabel: { color: INK, formatter: format },
  };
}

/** Draws curves, clouds and bands. */
export function linesChart({ title, caption, x, y, lines, log = {} }: LinesChart): Chart {
  const points = lines.flatMap((line) =>
    line.points.flatMap(([px, py], i) => [
      [px, py - (line.band?.[i] ?? 0)] as const,
      [px, py + (line.band?.[i] ?? 0)] as const,
    ]),
  );
  const shown = points.filter(([px, py]) => Number.isFinite(px) && Number.isFinite(py));
  const names = lines.map(({ name }) => name);
  const option = {
    legend: { ...LEGEND, data: names },
    grid: { ...gridBelow(names), left: 62 },
    xAxis: xAxis(x, {
      ...scale(
        shown.map(([px]) => px),
        log.x ?? false,
      ),
      splitLine: { show: false },
    }),
    yAxis: axis(y, {
      ...scale(
        shown.map(([, py]) => py),
        log.y ?? false,
      ),
      nameGap: 46,
      splitLine: { lineStyle: { color: FAINT } },
    }),
    series: lines.flatMap(seriesOf),
  };
  return { title, caption, svg: render(option, title) };
}
