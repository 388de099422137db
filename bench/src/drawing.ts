import * as echarts from 'echarts';

/** A picture with the words that stand for it. */
export interface Chart {
  readonly title: string;
  readonly caption: string;
  readonly svg: string;
}

const WIDTH = 500;
const HEIGHT = 330;
/** Colours that ECharts writes and {@link render} turns into CSS variables, so that the page's scheme decides. */
export const INK = '#010101';
/** Colour of rules. */
export const FAINT = '#020202';
export const SERIES = ['#030303', '#040404', '#050505', '#060606', '#070707', '#080808'] as const;
const DASHES: readonly ('solid' | number[])[] = ['solid', [8, 4], [2, 3], [12, 3, 2, 3], [5, 2], [1, 2]];
/** Symbols of series. */
export const SYMBOLS = ['circle', 'triangle', 'diamond'] as const;
const VARIABLES: Record<string, string> = {
  [INK]: 'var(--ink)',
  [FAINT]: 'var(--rule)',
  [SERIES[0]]: 'var(--a)',
  [SERIES[1]]: 'var(--b)',
  [SERIES[2]]: 'var(--c)',
  [SERIES[3]]: 'var(--d)',
  [SERIES[4]]: 'var(--e)',
  [SERIES[5]]: 'var(--f)',
};

/** Draws without a browser; the result asks for nothing from outside. */
export function render(option: echarts.EChartsCoreOption, label: string): string {
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: HEIGHT });
  try {
    chart.setOption({
      animation: false,
      textStyle: { fontFamily: 'system-ui, sans-serif', fontSize: 12, color: INK },
      ...option,
    });
    const svg = chart.renderToSVGString();
    return Object.entries(VARIABLES)
      .reduce((text, [colour, variable]) => text.replaceAll(colour, variable), svg)
      .replace(/ xmlns(:xlink)?="[^"]*"/g, '')
      .replace('<svg ', `<svg role="img" aria-label="${label}" `);
  } finally {
    chart.dispose();
  }
}

/** A legend above the chart. Fonts of readers are wider than what ECharts reckons with when there is no browser: hence the em spaces. */
export const LEGEND = {
  top: 0,
  left: 'center',
  itemWidth: 34,
  itemGap: 18,
  textStyle: { color: INK },
  formatter: (name: string): string => name + '\u2003'.repeat(Math.ceil(name.length / 15)),
};
/** The place of the axes. */
export const GRID = { left: 56, right: 20, top: 36, bottom: 46, containLabel: false, outerBoundsMode: 'none' };

/** The place of the axes below a legend of these names, with symbols so wide, which wraps. */
export function gridBelow(names: readonly string[], itemWidth = LEGEND.itemWidth): typeof GRID {
  const [room, toText, rowHeight] = [WIDTH - 10, 5, 30];
  let [rows, used] = [1, 0];
  for (const name of names) {
    const width = itemWidth + toText + echarts.format.getTextRect(LEGEND.formatter(name)).width;
    if (used > 0 && used + width > room) [rows, used] = [rows + 1, 0];
    used += width + LEGEND.itemGap;
  }
  return { ...GRID, top: GRID.top + (rows - 1) * rowHeight };
}

/** A step of 1, 2 or 5 times a power of ten that gives at most `count` ticks. */
export function niceStep(range: number, count: number): number {
  const rough = range / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return (([1, 2, 5].find((factor) => factor * power >= rough * (1 - 1e-9)) ?? 10) as number) * power;
}

/** An axis as all charts have it. */
export const axis = (name: string, more: Record<string, unknown>): Record<string, unknown> => ({
  name,
  nameLocation: 'middle',
  nameTextStyle: { color: INK },
  axisLine: { show: true, lineStyle: { color: FAINT } },
  axisTick: { show: false },
  axisLabel: { color: INK, hideOverlap: true },
  splitLine: { lineStyle: { color: FAINT } },
  ...more,
});

/** A horizontal axis. */
export const xAxis = (name: string, more: Record<string, unknown>): Record<string, unknown> =>
  axis(name, { nameGap: 28, splitLine: { show: false }, ...more });

/** Colour and dashes of series `index`. */
export const style = (index: number): Record<string, unknown> => ({
  color: SERIES[index % SERIES.length],
  lineStyle: { color: SERIES[index % SERIES.length], width: 2, type: DASHES[index % DASHES.length] },
  emphasis: { disabled: true },
});

/** The ticks 1, 2 and 5 times powers of ten that enclose a range. */
export function logTicks(min: number, max: number): number[] {
  const all: number[] = [];
  for (let power = Math.floor(Math.log10(min)) - 1; power <= Math.ceil(Math.log10(max)); power++)
    for (const factor of [1, 2, 5]) all.push(Number(`${factor}e${power}`));
  const from = all.findLastIndex((tick) => tick <= min);
  const to = all.findIndex((tick) => tick >= max);
  return all.slice(Math.max(0, from), to === -1 ? all.length : to + 1);
}

/** The label at the end of an axis only where the end is a tick. */
export const endLabel = (last: number, step: number): Record<string, unknown> => ({
  color: INK,
  showMaxLabel: Math.abs(last / step - Math.round(last / step)) < 1e-6,
});
