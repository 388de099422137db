import { readFileSync } from 'node:fs';

/** What `torch-golden.py` has written. For tests only. */
export interface Golden {
  /** Version of PyTorch that made the numbers. */
  readonly torch: string;
  /** Weights before the first step. */
  readonly start: readonly number[];
  /** Gradient of every step. */
  readonly gradients: readonly (readonly number[])[];
  /** Weights after every step, by optimizer. */
  readonly weights: Readonly<Record<string, readonly (readonly number[])[]>>;
  /** Learning rate and momentum of OneCycleLR at every step. */
  readonly oneCycle: readonly (readonly number[])[];
}

/** Reads the golden values of PyTorch. For tests only. */
export function golden(): Golden {
  return JSON.parse(readFileSync(new URL('../golden/torch-golden.json', import.meta.url), 'utf8')) as Golden;
}
