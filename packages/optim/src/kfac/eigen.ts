import type { LinearAlgebra, Matrix } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { Form } from './form.js';

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
  open(solved, n) {
    return [tf.tensor2d(solved.slice(0, n * n), [n, n]), tf.tensor1d(solved.slice(n * n))];
  },
  precondition(gradient, [qa, la], [qg, lg], damping) {
    const turned = tf.matMul(tf.matMul(qa as tf.Tensor2D, gradient, true), qg as tf.Tensor2D);
    const divisor = tf.add(tf.outerProduct(la as tf.Tensor1D, lg as tf.Tensor1D), damping);
    return tf.matMul(tf.matMul(qa as tf.Tensor2D, tf.div(turned, divisor)), qg as tf.Tensor2D, false, true);
  },
};
