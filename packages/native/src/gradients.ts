import * as tf from '@tensorflow/tfjs';
import { adjacentRuns, BACKEND, sizeOf, sortedAxes } from './kernels/kernel.js';

type GradFunc = tf.GradConfig['gradFunc'];

const run = (kernel: string, inputs: tf.NamedTensorMap, attrs: object = {}): tf.Tensor =>
  tf.engine().runKernel(kernel, inputs, attrs as tf.NamedAttrMap) as tf.Tensor;

/** Replaces the gradient of a kernel; `make` gets the present one. Gradients are global, so it has to serve all backends. */
function wrapGradient(kernelName: string, make: (stock: GradFunc) => GradFunc): void {
  const stock = tf.getGradient(kernelName) as tf.GradConfig | undefined;
  if (stock === undefined) return;
  tf.unregisterGradient(kernelName);
  tf.registerGradient({ ...stock, gradFunc: make(stock.gradFunc) });
}

/** The stock gradient makes a tensor of ones of x's shape and multiplies by it; this broadcasts dy once. */
function spreadGradient(mean: boolean): (stock: GradFunc) => GradFunc {
  return (stock) => (dy, saved, attrs) => {
    const x = saved[0] as tf.Tensor;
    const axes = sortedAxes(attrs['axis'] as number | number[], x.shape);
    if (tf.getBackend() !== BACKEND || x.dtype !== 'float32' || adjacentRuns(axes).length !== 1 || x.size === 0) {
      return stock(dy, saved, attrs);
    }
    const scale = mean ? 1 / sizeOf(axes.map((axis) => x.shape[axis] as number)) : 1;
    return { x: () => run('FrugalExpand', { x: dy as tf.Tensor }, { shape: x.shape, axes, scale }) };
  };
}

/** The gradients of the gradients' own kernels, for second derivatives. */
function registerSecondOrder(): void {
  if ((tf.getGradient('FrugalReluGrad') as tf.GradConfig | undefined) === undefined) {
    tf.registerGradient({
      kernelName: 'FrugalReluGrad',
      inputsToSave: ['x'],
      gradFunc: (ddx, saved) => {
        const x = saved[0] as tf.Tensor;
        return {
          dy: () => run('FrugalReluGrad', { dy: ddx as tf.Tensor, x }),
          x: () => tf.zerosLike(x),
        };
      },
    });
  }
  if ((tf.getGradient('FrugalExpand') as tf.GradConfig | undefined) === undefined) {
    tf.registerGradient({
      kernelName: 'FrugalExpand',
      inputsToSave: ['x'],
      gradFunc: (dy, saved, attrs) => {
        const sum = (): tf.Tensor => tf.sum(dy as tf.Tensor, attrs['axes'] as number[]);
        return {
          x: () =>
            sum()
              .mul(attrs['scale'] as number)
              .reshape((saved[0] as tf.Tensor).shape),
        };
      },
    });
  }
}

/** Gives Relu, Sum and Mean cheaper gradients on this backend, and leaves them alone on the others. */
export function registerGradients(): void {
  wrapGradient('Relu', (stock) => (dy, saved, attrs) => {
    const x = saved[0] as tf.Tensor;
    if (tf.getBackend() !== BACKEND || x.dtype !== 'float32' || x.size === 0) return stock(dy, saved, attrs);
    return { x: () => run('FrugalReluGrad', { dy: dy as tf.Tensor, x }) };
  });
  wrapGradient('Sum', spreadGradient(false));
  wrapGradient('Mean', spreadGradient(true));
  registerSecondOrder();
}
