import { all, create, type FactoryFunctionMap, type MathNode } from 'mathjs/number';
import { checkNumber, type Range } from './check.js';
import { FrugalError, show } from './errors.js';

/** Where a run is: `step` counts optimizer steps from 0, `total` is how many the run will make. */
export interface Clock {
  /** Index of the current optimizer step, from 0. */
  readonly step: number;
  /** Number of optimizer steps in the whole run; reading it where it is unknown throws. */
  readonly total: number;
}

/** A hyper-parameter over time: a pure function of the clock. */
export type Schedule = (clock: Clock) => number;

/**
 * What every hyper-parameter accepts: a number, a {@link Schedule}, or a formula in `step`, `total` and
 * `t = step / total`, as in `'0.1 * (1 - t)^0.9'`.
 */
export type Hyper = number | Schedule | string;

const math = create(all as FactoryFunctionMap);
const FUNCTIONS = [
  'abs',
  'ceil',
  'cos',
  'exp',
  'floor',
  'log',
  'log10',
  'log2',
  'max',
  'min',
  'mod',
  'pow',
  'round',
  'sign',
  'sin',
  'sqrt',
  'tan',
  'tanh',
];
const SYMBOLS = ['step', 'total', 't', 'pi', 'e'];
const NODES = [
  'ConditionalNode',
  'ConstantNode',
  'FunctionNode',
  'OperatorNode',
  'ParenthesisNode',
  'RelationalNode',
  'SymbolNode',
];

const complaint = (node: MathNode, parent: MathNode | null): string | undefined => {
  if (!NODES.includes(node.type)) return node.toString();
  if (node.type === 'ConstantNode') {
    return typeof (node as unknown as { value: unknown }).value === 'number' ? undefined : node.toString();
  }
  if (node.type !== 'SymbolNode') return undefined;
  const { name } = node as unknown as { name: string };
  const isCallee = parent?.type === 'FunctionNode' && (parent as unknown as { fn: MathNode }).fn === node;
  return (isCallee ? FUNCTIONS : SYMBOLS).includes(name) ? undefined : name;
};

const parse = (owner: string, name: string, formula: string): MathNode => {
  try {
    return math.parse(formula);
  } catch (cause) {
    throw new FrugalError(
      'CONFIG',
      `${owner}: ${name} ${show(formula)} is not a formula: ${(cause as Error).message}.`,
      { cause },
    );
  }
};

const compile = (owner: string, name: string, formula: string): Schedule => {
  const tree = parse(owner, name, formula);
  tree.traverse((node, _path, parent) => {
    const word = complaint(node, parent);
    if (word !== undefined) {
      throw new FrugalError(
        'CONFIG',
        `${owner}: expected ${name} to use only step, total, t, pi, e, arithmetic, comparisons and ${FUNCTIONS.join(', ')}, but ${show(formula)} contains ${show(word)}.`,
      );
    }
  });
  const code = tree.compile();
  const usesTotal = /\b(t|total)\b/.test(formula);
  return (clock) => {
    const total = usesTotal ? clock.total : Number.NaN;
    return Number(code.evaluate({ step: clock.step, total, t: clock.step / total }));
  };
};

/**
 * Turns a {@link Hyper} into a {@link Schedule} whose every value is checked against `range`. A number is checked
 * at once, a formula is parsed at once (only arithmetic is allowed); values of a schedule are checked when read.
 *
 * @throws {@link FrugalError} `CONFIG`, naming `owner` and `name`
 */
export function hyper(owner: string, name: string, value: Hyper, range: Range = {}): Schedule {
  if (typeof value === 'number') {
    const constant = checkNumber(owner, name, value, range);
    return () => constant;
  }
  if (typeof value !== 'string' && typeof value !== 'function') {
    throw new FrugalError(
      'CONFIG',
      `${owner}: expected ${name} to be a number, a schedule or a formula but received ${show(value)}.`,
    );
  }
  const schedule = typeof value === 'string' ? compile(owner, name, value) : value;
  return (clock) => checkNumber(owner, `${name} at step ${clock.step}`, schedule(clock), range);
}

/** A clock at `step`; without `total`, reading it throws and says how to give it. */
export function clockAt(step: number, total?: number): Clock {
  return {
    step,
    get total(): number {
      if (total !== undefined) return total;
      throw new FrugalError(
        'CONFIG',
        'A schedule needs the number of steps of the whole run, which fit does not tell: pass { totalSteps } to attached.optimizer(…), or use train().',
      );
    },
  };
}
