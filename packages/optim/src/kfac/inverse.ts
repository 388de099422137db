import type { LinearAlgebra, Matrix } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { type Form, stacked } from './form.js';

function identity(n: number): Matrix {
  const data = new Float64Array(n * n);
  for (let i = 0; i < n; i++) data[i * n + i] = 1;
  return { rows: n, columns: n, data };
}

function damped({ rows, columns, data }: Matrix, damping: number): Matrix {
  const copy = Float64Array.from(data);
  for (let i = 0; i < rows; i++) copy[i * rows + i] = (copy[i * rows + i] as number) + damping;
  return { rows, columns, data: copy };
}

/**
 * P = (A + π·√γ·I)⁻¹·∇·(G + √γ/π·I)⁻¹ with π² = (tr A / a) / (tr G / g), Martens and Grosse 2015, section 6.3: this damps
 * each factor, so not A ⊗ G + γ·I, and a new γ acts from the next inverse on. π makes the scale of A against that of G not
 * matter; the code of Pauloski et al. takes γ for both. A factor of size n takes n² numbers.
 */
export const inverseForm: Form = {
  name: 'inverse',
  length: (n) => n * n,
  start: (algebra: LinearAlgebra, factor: Matrix, damping: number) => () =>
    Float32Array.from(algebra.choleskySolve(algebra.cholesky(damped(factor, damping)), identity(factor.rows)).data),
  open: (solved, n) => [stacked(solved, [0, n * n], [n, n])],
  precondition: (gradients, [a], [g]) => tf.matMul(tf.matMul(a as tf.Tensor3D, gradients), g as tf.Tensor3D),
};
