import { FrugalError } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { zeros } from './slots.js';

/** 1 − Π β1 and 1 − Π β2 over the steps so far: what divides m and v. */
export interface Corrections {
  /** 1 − Π β1. */
  readonly first: number;
  /** 1 − Π β2. */
  readonly second: number;
}

/** The running corrections, kept in a Variable so that a checkpoint restores them. */
export interface CorrectionState {
  /** Starts anew: both 0. */
  init(): void;
  /** Counts one step with these betas and returns the corrections after it. */
  advance(beta1: number, beta2: number): Corrections;
  /** The Variable [2, 2]: a row for m and one for v, each as a float32 and the float32 of what that left out. */
  variable(): tf.Variable | undefined;
  /** Frees the Variable. */
  dispose(): void;
}

/** c = high + low, in which low holds what high has lost: 48 bits in two float32. */
const split = (c: number): [number, number] => [Math.fround(c), Math.fround(c - Math.fround(c))];
const join = (high = 0, low = 0): number => high + low;

/**
 * c_t = 1 − Π_{s≤t} β_s by c_t = (1 − β_t) + β_t·c_{t−1}, which keeps its relative precision where β is near 1 and the
 * product would not (1 − 0.999 in float32 is off by 5e-5). A resumed run continues bit by bit.
 */
export function correctionState(owner: string): CorrectionState {
  let stored: tf.Variable | undefined;
  const dispose = (): void => {
    stored?.dispose();
    stored = undefined;
  };
  return {
    init() {
      dispose();
      stored = zeros([2, 2]);
    },
    advance(beta1, beta2) {
      const variable = stored;
      if (!variable) throw new FrugalError('CONFIG', `${owner}: expected init before the first step. Call init first.`);
      const [high1, low1, high2, low2] = variable.dataSync();
      const rows = [
        split(1 - beta1 + beta1 * join(high1, low1)),
        split(1 - beta2 + beta2 * join(high2, low2)),
      ] as const;
      tf.tidy(() => variable.assign(tf.tensor2d([...rows[0], ...rows[1]], [2, 2])));
      return { first: join(...rows[0]), second: join(...rows[1]) };
    },
    variable: () => stored,
    dispose,
  };
}
