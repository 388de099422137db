import * as tf from '@tensorflow/tfjs';
import { FrugalError } from '../errors.js';

/** A dense matrix as plain data: `data[i * columns + j]` is the element of row i and column j. */
export interface Matrix {
  /** Number of rows, at least 1. */
  readonly rows: number;
  /** Number of columns, at least 1. */
  readonly columns: number;
  /** The elements, row after row. Its type is the precision of the results; the arithmetic is double either way. */
  readonly data: Float64Array | Float32Array;
}

/** A copy of a tensor of rank 2, in single precision. Waits for the engine: on a GPU that costs a synchronisation. */
export function toMatrix(tensor: tf.Tensor): Matrix {
  const [rows, columns] = tensor.shape;
  if (tensor.rank !== 2 || rows === undefined || columns === undefined)
    throw new FrugalError('SHAPE', `toMatrix: expected a tensor of rank 2 but received [${tensor.shape.join(', ')}].`);
  return { rows, columns, data: Float32Array.from(tensor.dataSync()) };
}

/** A float32 tensor of shape [rows, columns] with a copy of the elements. The caller disposes of it. */
export function toTensor(matrix: Matrix): tf.Tensor2D {
  checkShape('toTensor', 'matrix', matrix);
  return tf.tensor2d(Float32Array.from(matrix.data), [matrix.rows, matrix.columns]);
}

/** Refuses sizes that are not whole numbers of at least 1, and data of another length. */
export function checkShape(owner: string, name: string, { rows, columns, data }: Matrix): void {
  const whole = [rows, columns].every((size) => Number.isInteger(size) && size >= 1);
  if (!whole || data.length !== rows * columns)
    throw new FrugalError(
      'SHAPE',
      `${owner}: expected ${name} with rows · columns elements, at least one, but received [${rows}, ${columns}] with ` +
        `${data.length} elements.`,
    );
}

/** A copy of the elements in double precision; refuses a wrong shape, NaN and infinity. */
export function finiteCopy(owner: string, name: string, matrix: Matrix): Float64Array {
  checkShape(owner, name, matrix);
  const copy = Float64Array.from(matrix.data);
  const at = copy.findIndex((x) => !Number.isFinite(x));
  if (at >= 0)
    throw new FrugalError(
      'NON_FINITE',
      `${owner}: expected finite numbers but ${name} has ${copy[at]} in row ${Math.floor(at / matrix.columns)}, column ` +
        `${at % matrix.columns}. Look at what made the matrix.`,
    );
  return copy;
}

/** Refuses a matrix that is not square. */
export function checkSquare(owner: string, name: string, { rows, columns }: Matrix): void {
  if (rows !== columns)
    throw new FrugalError('SHAPE', `${owner}: expected ${name} to be square but received [${rows}, ${columns}].`);
}

/**
 * How far two mirrored elements may lie apart, relative to the largest element. A product such as XᵀX that was summed in
 * another order above the diagonal than below differs by about √count roundings: that is an accident and is averaged
 * away. More is a mistake of the caller. A thousand roundings and more of each precision.
 */
const ASYMMETRY = { single: 1e-4, double: 1e-12 };

/** A copy whose mirrored elements are exactly equal; refuses what is not symmetric up to rounding. */
export function symmetricCopy(owner: string, name: string, matrix: Matrix): Float64Array {
  const copy = finiteCopy(owner, name, matrix);
  checkSquare(owner, name, matrix);
  const n = matrix.rows;
  const relative = matrix.data instanceof Float32Array ? ASYMMETRY.single : ASYMMETRY.double;
  const allowed = relative * copy.reduce((largest, x) => Math.max(largest, Math.abs(x)), 0);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const [low, high] = [i * n + j, j * n + i];
      const [a, b] = [copy[low] as number, copy[high] as number];
      if (Math.abs(a - b) > allowed)
        throw new FrugalError(
          'CONFIG',
          `${owner}: expected ${name} to be symmetric but element [${i}, ${j}] is ${a} and [${j}, ${i}] is ${b}.`,
        );
      copy[low] = copy[high] = 0.5 * a + 0.5 * b;
    }
  }
  return copy;
}

/** The matrix of these elements in the precision of `like`. */
export function matrixLike(like: Matrix, rows: number, columns: number, data: Float64Array): Matrix {
  return { rows, columns, data: inPrecisionOf(like, data) };
}

/** The numbers in the precision of `like`. */
export function inPrecisionOf(like: Matrix, data: Float64Array): Float64Array | Float32Array {
  return like.data instanceof Float32Array ? Float32Array.from(data) : data;
}
