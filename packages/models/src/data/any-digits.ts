import { type DigitsOptions, DIGITS_OPTIONS, digits } from './digits.js';
import { MNIST, readIdxSplit } from './mnist.js';
import { checkDataOptions, DATA_OPTIONS, type DataOptions, locate, type Split } from './source.js';

/** Options of {@link anyDigits}: where MNIST may be, and how many digits to draw otherwise. */
export interface AnyDigitsOptions extends DataOptions, DigitsOptions {}

/**
 * MNIST if the folder, the cache or a download gives it; otherwise {@link digits}. It says by `log`, and by the data
 * sets' `name` and `origin`, which of the two it is. MNIST comes whole: `train`, `test` and `seed` count for drawn
 * digits only. Without a network it gives up after 5 seconds per address.
 *
 * @throws FrugalError `DATA` if MNIST's files are there but damaged: they are never silently replaced; `CONFIG` for
 *   a wrong option
 */
export async function anyDigits(options: AnyDigitsOptions = {}): Promise<Split> {
  checkDataOptions('anyDigits', options, [...DATA_OPTIONS, ...DIGITS_OPTIONS]);
  const { train, test, seed, log = (line: string) => console.error(line) } = options;
  const found = await locate(MNIST, options);
  const split =
    'missing' in found ? digits({ train, test, seed }) : await readIdxSplit(MNIST, found.path, found.origin);
  if ('missing' in found) log(`MNIST was not found: ${found.missing}. Using procedural digits instead.`);
  log(`Data: ${split.train.name}, ${split.train.length} + ${split.test.length} examples, ${split.train.origin}.`);
  return split;
}
