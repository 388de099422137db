import { clockAt, type LocalTransform, openScope, type Param, type Scope, type Updates } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** The scope of one step. For tests only. */
export function scopeAt(step: number, total?: number): Scope {
  return openScope(clockAt(step, total), 0);
}

/** A weight of these values. For tests only. */
export function paramOf(values: readonly number[], shape: readonly number[] = [values.length], name = 'w'): Param {
  return { name, value: tf.tidy(() => tf.variable(tf.tensor([...values], [...shape], 'float32'), true)) };
}

/** One step by `update`, and W += ΔW. For tests only. */
export function pureStep(link: LocalTransform, updates: Updates, params: readonly Param[], scope: Scope): void {
  tf.tidy(() => {
    for (const [name, delta] of link.update(updates, params, scope)) {
      const param = params.find((p) => p.name === name);
      param?.value.assign(tf.add(param.value, delta));
    }
  });
}

/** One step by `apply` where the link has it. For tests only. */
export function fusedStep(link: LocalTransform, updates: Updates, params: readonly Param[], scope: Scope): void {
  if (!link.apply) throw new Error(`${link.name} has no apply`);
  tf.tidy(() => link.apply?.(updates, params, scope));
}

/** Options of {@link trace}. For tests only. */
export interface TraceOptions {
  readonly start: readonly number[];
  readonly shape?: readonly number[];
  /** Gradient of each step, from the weights. */
  readonly gradient: (step: number, w: Float32Array) => readonly number[] | Float32Array;
  readonly steps: number;
  readonly by?: typeof pureStep;
}

/** Weights after each step, of one weight `w`; frees everything. For tests only. */
export function trace(
  link: LocalTransform,
  { start, shape, gradient, steps, by = pureStep }: TraceOptions,
): number[][] {
  const param = paramOf(start, shape);
  link.init([param]);
  const rows: number[][] = [];
  for (let step = 0; step < steps; step++) {
    const g = gradient(step, param.value.dataSync() as Float32Array);
    tf.tidy(() => {
      by(link, new Map([['w', tf.tensor(Float32Array.from(g), param.value.shape)]]), [param], scopeAt(step, steps));
    });
    rows.push([...param.value.dataSync()]);
  }
  param.value.dispose();
  link.dispose();
  return rows;
}
