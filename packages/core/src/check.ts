import { FrugalError, show } from './errors.js';

const refuse = (owner: string, name: string, expected: string, received: unknown, remedy?: string): never => {
  const tail = remedy === undefined ? '' : ` ${remedy}`;
  throw new FrugalError('CONFIG', `${owner}: expected ${name} ${expected} but received ${show(received)}.${tail}`);
};

/** An open or closed interval of numbers, with the text that an error prints. */
export interface Range {
  /** Smallest allowed value. */
  readonly min?: number;
  /** Largest allowed value. */
  readonly max?: number;
  /** Is `min` itself refused? */
  readonly aboveMin?: boolean;
  /** Is `max` itself refused? */
  readonly belowMax?: boolean;
}

const describe = ({ min, max, aboveMin, belowMax }: Range): string => {
  if (min === undefined && max === undefined) return 'to be a finite number';
  const low = min === undefined ? '(-∞' : `${aboveMin ? '(' : '['}${min}`;
  const high = max === undefined ? '∞)' : `${max}${belowMax ? ')' : ']'}`;
  return `in ${low}, ${high}`;
};

/** Returns `value` if it is a finite number in `range`; otherwise throws a `CONFIG` error that names `owner` and `name`. */
export function checkNumber(owner: string, name: string, value: unknown, range: Range = {}): number {
  const { min = -Infinity, max = Infinity, aboveMin, belowMax } = range;
  const fits =
    typeof value === 'number' &&
    Number.isFinite(value) &&
    (aboveMin ? value > min : value >= min) &&
    (belowMax ? value < max : value <= max);
  return fits ? value : refuse(owner, name, describe(range), value);
}

/** Returns `value` if it is an integer in `range`; otherwise throws a `CONFIG` error. */
export function checkInteger(owner: string, name: string, value: unknown, range: Range = {}): number {
  if (!Number.isInteger(value)) return refuse(owner, name, 'to be an integer', value);
  return checkNumber(owner, name, value, range);
}

/** Returns `value` if it is one of `choices`; otherwise throws a `CONFIG` error that lists them. */
export function checkChoice<T extends string>(owner: string, name: string, value: unknown, choices: readonly T[]): T {
  if (choices.includes(value as T)) return value as T;
  return refuse(owner, name, `to be one of ${choices.map((c) => `'${c}'`).join(', ')}`, value);
}

/** Throws a `CONFIG` error for every option that is not in `known`: a misspelt option must never be ignored. */
export function checkOptions(owner: string, options: object, known: readonly string[]): void {
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) refuse(owner, 'options', `among ${known.join(', ')}`, key, 'Check the spelling.');
  }
}
