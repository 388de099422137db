import type { FloatVector } from '@frugal/core';

/** All weights of a rank one after the other: float32 in training, float64 in simulation. */
export type Vector = FloatVector;

/** The vectors of one rank, all of one length and type. */
export interface RankVectors<V extends Vector = Vector> {
  /** Weights. */
  readonly x: V;
  /** Gradient. */
  readonly g: V;
  /** State, by slot; zero at the start. */
  readonly state: Readonly<Record<string, V>>;
}

/** One iteration of a recursion at one rank. */
export interface Iteration<Slot extends string = string> {
  /** The weights, which the iteration moves. */
  readonly x: Vector;
  /** The gradient of this rank's loss at x. The iteration may overwrite it. */
  readonly g: Vector;
  /** The state, which the iteration moves. */
  readonly state: Readonly<Record<Slot, Vector>>;
  /** Index of the iteration, from 0. */
  readonly step: number;
  /** γ of this iteration. */
  readonly rate: number;
  /** β of this iteration. */
  readonly momentum: number;
  /** γ / γ of so many iterations ago: what turns an old displacement into one of today. 0 where that γ was 0. */
  rateRatio(ago: number): number;
  /** into ← a·x + b·y, element by element. `into` may be x or y. */
  combine(into: Vector, a: number, x: Vector, b: number, y: Vector): void;
  /** Replaces the contents of `values` by Σ_j w_ij·values_j. */
  mix(values: Vector): Promise<void>;
  /** Replaces the contents of `values` by their mean over all ranks. */
  average(values: Vector): Promise<void>;
}

/** A method on plain vectors: the same code trains models in float32 and meets its closed forms in float64. */
export interface Recursion<Slot extends string = string> {
  /** Names of the vectors of its state. All are zero at the start. */
  readonly slots: readonly Slot[];
  /** Makes one iteration. */
  iterate(at: Iteration<Slot>): Promise<void>;
}
