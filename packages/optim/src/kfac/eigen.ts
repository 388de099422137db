import type { LinearAlgebra, Matrix } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { type Form, stacked } from './form.js';

/**
 * A = Q_A·diag(λ_A)·Q_Aᵀ, G alike, eigenvalues below 0 taken as 0:
 *
 *   P = Q_A·((Q_Aᵀ·∇·Q_G) / (λ_A·λ_Gᵀ + γ))·Q_Gᵀ,
 *
 * which is (A ⊗ G + γ·I)⁻¹·∇ exactly, and damping may change without a new decomposition. A factor of size n takes n² + n
 * numbers.
 */
export const eigenForm: Form = {
  name: 'eigen',
  length: (n) => n * n + n,
  start(algebra: LinearAlgebra, factor: Matrix) {
    const join = algebra.startSymmetricEigen(factor);
    return () => {
      const { values, vectors } = join();
      const solved = new Float32Array(factor.rows * (factor.rows + 1));
      solved.set(vectors.data);
      solved.set(
        values.map((value) => Math.max(0, value)),
        vectors.data.length,
      );
      return solved;
    };
  },
  open: (solved, n) => [stacked(solved, [0, n * n], [n, n]), stacked(solved, [n * n, n * n + n], [n])],
  precondition(gradients, [qa, la], [qg, lg], damping, moments) {
    const [left, right] = [qa as tf.Tensor3D, qg as tf.Tensor3D];
    const turned = tf.matMul(tf.matMul(left, gradients, true), right);
    const products = moments ?? tf.mul(tf.expandDims(la as tf.Tensor, 2), tf.expandDims(lg as tf.Tensor, 1));
    const divisor = tf.add(products, damping);
    return tf.matMul(tf.matMul(left, tf.div(turned, divisor)), right, false, true);
  },
};
