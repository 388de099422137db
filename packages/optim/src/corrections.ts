/** 1 − Π β1 and 1 − Π β2 over the steps so far: what divides m and v. */
export interface Corrections {
  /** 1 − Π β1. */
  readonly first: number;
  /** 1 − Π β2. */
  readonly second: number;
}

/** The running corrections, numbers of the host that a checkpoint keeps. */
export interface CorrectionState {
  /** Counts one step with these betas and returns the corrections after it. */
  advance(beta1: number, beta2: number): Corrections;
  /** [1 − Π β1, 1 − Π β2]; both 0 before the first step. */
  readonly kept: Float64Array;
}

/**
 * c_t = 1 − Π_{s≤t} β_s by c_t = (1 − β_t) + β_t·c_{t−1}, which keeps its relative precision where β is near 1 and the
 * product would not. A resumed run continues bit by bit.
 */
export function correctionState(): CorrectionState {
  const kept = new Float64Array(2);
  return {
    kept,
    advance(beta1, beta2) {
      const [before1 = 0, before2 = 0] = kept;
      const [first, second] = [1 - beta1 + beta1 * before1, 1 - beta2 + beta2 * before2];
      kept.set([first, second]);
      return { first, second };
    },
  };
}
