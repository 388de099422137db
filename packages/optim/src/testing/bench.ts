import {
  clockAt,
  type OpenedUpdate,
  openScope,
  type Param,
  type Scope,
  type UpdateLink,
  type Updates,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { openLink } from './open.js';

/** The scope of one step. For tests only. */
export function scopeAt(step: number, total?: number): Scope {
  return openScope(clockAt(step, total), 0);
}

/** A weight of these values. For tests only. */
export function paramOf(values: readonly number[], shape: readonly number[] = [values.length], name = 'w'): Param {
  return { name, value: tf.tidy(() => tf.variable(tf.tensor([...values], [...shape], 'float32'), true)) };
}

/** One step of an update, as the chain makes it. For tests only. */
export function stepBy(link: OpenedUpdate, gradients: Updates, scope: Scope): void {
  tf.tidy(() => void link.apply(gradients, scope));
}

/** Options of {@link trace}. For tests only. */
export interface TraceOptions {
  readonly start: readonly number[];
  readonly shape?: readonly number[];
  /** Gradient of each step, from the weights. */
  readonly gradient: (step: number, w: Float32Array) => readonly number[] | Float32Array;
  readonly steps: number;
}

/** Weights after each step, of one weight `w`; frees everything. For tests only. */
export function trace(link: UpdateLink, { start, shape, gradient, steps }: TraceOptions): number[][] {
  const param = paramOf(start, shape);
  const opened = openLink(link, [param]);
  const rows: number[][] = [];
  for (let step = 0; step < steps; step++) {
    const g = gradient(step, param.value.dataSync() as Float32Array);
    tf.tidy(() => {
      stepBy(opened, new Map([['w', tf.tensor(Float32Array.from(g), param.value.shape)]]), scopeAt(step, steps));
    });
    rows.push([...param.value.dataSync()]);
  }
  param.value.dispose();
  opened.dispose?.();
  return rows;
}
