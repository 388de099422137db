import type { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs';
import type { Tally, WasmBackend } from './backend.js';
import { dropView, floats, NAME, sizeOf, view } from './backend.js';
import { bridged } from './bridge.js';
import type { Inputs, Kernel, Kernels, Run } from './kernel.js';
import { at, compose, need, reshaped } from './kernel.js';

/** Below this many multiply-adds a product of a batch costs less in upstream's scalar loop than a call of XNNPACK. */
const WORTH_A_CALL = 1 << 14;

interface Flags {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

interface FusedAttrs extends Flags {
  readonly activation?: string;
  readonly leakyreluAlpha?: number;
}

const NN: Flags = { transposeA: false, transposeB: false };

/** Swaps the last two axes. */
function swapped(run: Run, x: tf.TensorInfo): tf.TensorInfo {
  const rank = x.shape.length;
  const perm = x.shape.map((_, i) => (i < rank - 2 ? i : 2 * rank - 3 - i));
  return run('Transpose', { x }, { perm });
}

/** Where product number `i` of the broadcast batch `outer` finds its matrix in an operand of batch `own`. */
function batchIndex(i: number, outer: readonly number[], own: readonly number[]): number {
  let rest = i;
  let index = 0;
  let stride = 1;
  for (let axis = 1; axis <= outer.length; axis++) {
    const size = at(outer, -axis);
    const ownSize = own.at(-axis) ?? 1;
    if (ownSize > 1) index += (rest % size) * stride;
    stride *= ownSize;
    rest = Math.floor(rest / size);
  }
  return index;
}

type Stock = (a: tf.TensorInfo, b: tf.TensorInfo, flags: Flags) => tf.TensorInfo;

/** One XNNPACK product per matrix of the batch, on views: upstream uses XNNPACK for batch 1 only. */
function perMatrix(backend: WasmBackend, stock: Stock, a: tf.TensorInfo, b: tf.TensorInfo): tf.TensorInfo {
  const [rows, inner, columns] = [at(a.shape, -2), at(a.shape, -1), at(b.shape, -1)];
  const [ownA, ownB] = [a.shape.slice(0, -2), b.shape.slice(0, -2)];
  const outer = tf.broadcast_util.assertAndGetBroadcastShape(ownA, ownB);
  const out = backend.makeOutput([...outer, rows, columns], 'float32');
  for (let i = 0; i < sizeOf(outer); i++) {
    const left = view(backend, a, batchIndex(i, outer, ownA) * rows * inner, [rows, inner]);
    const right = view(backend, b, batchIndex(i, outer, ownB) * inner * columns, [inner, columns]);
    const product = stock(left, right, NN);
    floats(backend, out).set(floats(backend, product), i * rows * columns);
    backend.disposeData(product.dataId);
    dropView(backend, left);
    dropView(backend, right);
  }
  return out;
}

/**
 * Upstream hands only an untransposed product of batch 1 to XNNPACK (30-40 GF/s); flags and batches go to a scalar loop
 * (1-3 GF/s, batch_mat_mul_impl.cc 4.22), which also sizes a batch [2, 1] by [1, 3] wrongly. So: transpose, then multiply.
 */
const batchMatMul =
  (stock: Stock, onCpu: Kernel): Kernel =>
  (inputs, attrs, backend) => {
    const { transposeA, transposeB } = attrs as Flags;
    const [a, b] = [need(inputs, 'a'), need(inputs, 'b')];
    if (a.dtype !== 'float32' || b.dtype !== 'float32') return onCpu(inputs, attrs, backend);
    const [batchA, batchB] = [sizeOf(a.shape.slice(0, -2)), sizeOf(b.shape.slice(0, -2))];
    const inner = at(a.shape, transposeA ? -2 : -1);
    const one = at(a.shape, transposeA ? -1 : -2) * inner * at(b.shape, transposeB ? -2 : -1);
    const sameBatch = a.shape.slice(0, -2).join() === b.shape.slice(0, -2).join();
    if (sameBatch && batchA > 1 && one < WORTH_A_CALL) return stock(a, b, { transposeA, transposeB });
    return compose(backend, (run) => {
      const left = transposeA ? swapped(run, a) : a;
      const right = transposeB ? swapped(run, b) : b;
      return batchA === 1 && batchB === 1 ? stock(left, right, NN) : perMatrix(backend, stock, left, right);
    });
  };

const UNARY: Readonly<Record<string, string>> = { relu: 'Relu', relu6: 'Relu6', elu: 'Elu', sigmoid: 'Sigmoid' };

/** The activation of a fused kernel as a kernel of its own. */
function activated(
  run: Run,
  x: tf.TensorInfo,
  inputs: Inputs,
  { activation, leakyreluAlpha }: FusedAttrs,
): tf.TensorInfo {
  if (activation === undefined || activation === 'linear') return x;
  if (activation === 'leakyrelu') return run('LeakyRelu', { x }, { alpha: leakyreluAlpha ?? 0.2 });
  if (activation === 'prelu') return run('Prelu', { x, alpha: need(inputs, 'preluActivationWeights') });
  const name = UNARY[activation];
  if (name === undefined) throw new Error(`portable engine: expected an activation but received ${activation}.`);
  return run(name, { x });
}

/**
 * Upstream's fused product adds the bias once per block of 48 inner elements and clamps partial sums, wherever it does not
 * use XNNPACK (batch_mat_mul_impl.cc 4.22, slow_batch_matmul). Three kernels cost less than a wrong result.
 */
const fusedMatMul: Kernel = (inputs, attrs, backend) =>
  compose(backend, (run) => {
    const flags = attrs as FusedAttrs;
    const { transposeA, transposeB } = flags;
    const product = run('BatchMatMul', { a: inputs['a'], b: inputs['b'] }, { transposeA, transposeB });
    const { bias } = inputs;
    const sum = bias == null ? product : run('Add', { a: product, b: bias });
    return reshaped(activated(run, sum, inputs, flags), product.shape);
  });

/** The matrix products of this engine. */
export function matMulKernels(cpu: MathBackendCPU, tally: Tally): Kernels {
  const { kernelFunc } = tf.getKernel('BatchMatMul', NAME);
  return {
    BatchMatMul: (inputs, attrs, backend) => {
      const stock: Stock = (a, b, flags) =>
        kernelFunc({ inputs: { a, b }, backend, attrs: { ...flags } }) as tf.TensorInfo;
      return batchMatMul(stock, bridged('BatchMatMul', cpu, tally))(inputs, attrs, backend);
    },
    _FusedMatMul: fusedMatMul,
  };
}
