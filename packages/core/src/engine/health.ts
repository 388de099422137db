import * as tf from '@tensorflow/tfjs';

/**
 * Runs a small product and a convolution's filter gradient on the active backend and compares them with numbers worked out
 * by hand. A library that loads is not a library that works. Returns what is wrong, or undefined.
 */
export function healthProblem(): string | undefined {
  return tf.tidy(() => {
    const a = tf.tensor2d([1, 2, 3, 4], [2, 2]);
    const product = tf.matMul(a, a, false, true).dataSync();
    // [1 2; 3 4]·[1 2; 3 4]ᵀ
    if (![5, 11, 11, 25].every((v, i) => product[i] === v))
      return `a 2×2 product gave [${product.join(', ')}], expected [5, 11, 11, 25]`;
    const x = tf.tensor4d([1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 3, 3, 1]);
    const w = tf.ones<tf.Rank.R4>([2, 2, 1, 1]);
    const gradient = tf
      .grad((filter: tf.Tensor) => tf.conv2d(x, filter as tf.Tensor4D, 1, 'valid'))(w)
      .dataSync();
    // Each tap of a 2×2 filter sees a 2×2 block of x: 1+2+4+5, 2+3+5+6, 4+5+7+8, 5+6+8+9.
    if (![12, 16, 24, 28].every((v, i) => gradient[i] === v))
      return `a convolution gradient gave [${gradient.join(', ')}], expected [12, 16, 24, 28]`;
    return undefined;
  });
}
