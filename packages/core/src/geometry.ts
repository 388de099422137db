import type * as tf from '@tensorflow/tfjs';
import type { FusedActivation } from './kernels/bias-activation.js';

/** The three products of a linear layer: Y = X·W, dX = dY·Wᵀ, dW = Xᵀ·dY. */
export type Product = 'forward' | 'inputGrad' | 'weightGrad';

/** The axis that a product contracts, on its left and its right operand. */
export interface Contraction {
  /** Axis of the left operand: x, dy, x. */
  readonly left: number;
  /** Axis of the right operand: w, w, dy. */
  readonly right: number;
}

/** What follows a product in its layer and is computed in the same pass. */
export interface Epilogue {
  /** Added over the last axis. */
  readonly bias?: tf.Tensor;
  /** Applied last. */
  readonly activation: FusedActivation;
}

/** The exact products of a geometry, on whole tensors or on slices of them. */
export interface ExactProducts {
  /** Y = X·W, or activation(X·W + bias). */
  forward(x: tf.Tensor, w: tf.Tensor, epilogue?: Epilogue): tf.Tensor;
  /** dX = dY·Wᵀ, of shape `xShape`. */
  inputGrad(dy: tf.Tensor, w: tf.Tensor, xShape: readonly number[]): tf.Tensor;
  /** dW = Xᵀ·dY, of shape `wShape`. */
  weightGrad(x: tf.Tensor, dy: tf.Tensor, wShape: readonly number[]): tf.Tensor;
}

/** An input in the form that the products of a geometry take. */
export interface Operand {
  /** The form: a dense x of higher rank becomes [rows, features]. */
  readonly x: tf.Tensor;
  /** Rows of `x` that one example has, where they are not one. */
  readonly rowsPerExample?: number;
  /** Gives the result the form that the input had. */
  restore(y: tf.Tensor): tf.Tensor;
}

/** A call of a layer whose gradients of single examples are asked for. */
export interface ExampleGradients {
  /** As the products take it. */
  readonly x: tf.Tensor;
  /** Gradient of the product. */
  readonly dy: tf.Tensor;
  /** Shape of the weight. */
  readonly wShape: readonly number[];
  /** Rows of x that one example has. */
  readonly rowsPerExample: number;
  /** How many examples, from the first on. */
  readonly count: number;
  /** Is there a bias? Then its gradient is a last row. */
  readonly bias: boolean;
}

/**
 * How a layer multiplies: its three products, and what methods ask about them. One value for each kind of layer, in a file of
 * its own; nothing that is shared asks which one it is.
 */
export interface Geometry {
  /** Name, for reports: `dense`. */
  readonly name: string;
  /**
   * Each product contracts exactly one axis: Y the inputs, dX the outputs, dW the batch. To sample a product is to keep some
   * indices of that axis in both operands and to call the exact product on the slices.
   */
  readonly contractions: Readonly<Record<Product, Contraction>>;
  /** Is the weight applied at many positions of an example, as the filters of a convolution are? */
  readonly slides: boolean;
  /** The exact products. */
  readonly products: ExactProducts;
  /** Multiply-adds of one product, from the shapes of the output y (or dy) and of the weight. */
  multiplyAdds(yShape: readonly number[], wShape: readonly number[]): number;
  /** The input of the layer as the products take it. */
  operandOf(x: tf.Tensor): Operand;
  /**
   * Σ r·rᵀ over the rows r that the weight meets in x, flattened as the weight is: features, or the patches of a convolution.
   * With `ones` each row has a 1 at its end, as the input of a bias.
   */
  gramOfInputs(x: tf.Tensor, wShape: readonly number[], ones: boolean): tf.Tensor2D;
  /** dW of single examples as matrices [count, rows, outputs], the factor of a mean loss included. */
  exampleGradients(call: ExampleGradients): tf.Tensor3D;
}

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/**
 * Multiply-adds of one product where every output is a sum over the whole of a filter. Dense: N·K·M. Convolution:
 * N·outH·outW·kH·kW·C·O, padding counted, as is usual.
 */
export function multiplyAdds(yShape: readonly number[], wShape: readonly number[]): number {
  return (size(yShape) / (wShape.at(-1) as number)) * size(wShape);
}

/** Multiply-adds of each product. */
export type Counts = Record<Product, number>;

/** The exact products of `geometry`, but every call adds its multiply-adds to `done`: what a rule reports is what it ran. */
export function counted({ products, multiplyAdds: of }: Geometry, done: Counts): ExactProducts {
  return {
    forward(x, w, epilogue) {
      const y = products.forward(x, w, epilogue);
      done.forward += of(y.shape, w.shape);
      return y;
    },
    inputGrad(dy, w, xShape) {
      done.inputGrad += of(dy.shape, w.shape);
      return products.inputGrad(dy, w, xShape);
    },
    weightGrad(x, dy, wShape) {
      done.weightGrad += of(dy.shape, wShape);
      return products.weightGrad(x, dy, wShape);
    },
  };
}
