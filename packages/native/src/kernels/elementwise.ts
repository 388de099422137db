import * as tf from '@tensorflow/tfjs';
import { BINARY, UNARY } from '../addon.js';
import type { NativeBackend } from '../backend.js';
import { isFloat, type One, type Registry, sameShape, sizeOf, type Two } from './kernel.js';

const UNARY_KERNELS: Readonly<Record<string, number>> = {
  Relu: UNARY.relu,
  Relu6: UNARY.relu6,
  Square: UNARY.square,
  Neg: UNARY.negate,
  Exp: UNARY.exp,
  Log: UNARY.log,
  Sqrt: UNARY.sqrt,
  Rsqrt: UNARY.rsqrt,
  Sigmoid: UNARY.sigmoid,
  Tanh: UNARY.tanh,
  Abs: UNARY.abs,
  Elu: UNARY.elu,
};

const BINARY_KERNELS: Readonly<Record<string, number>> = {
  Add: BINARY.add,
  Sub: BINARY.subtract,
  Multiply: BINARY.multiply,
  RealDiv: BINARY.divide,
  Maximum: BINARY.maximum,
  Minimum: BINARY.minimum,
  SquaredDifference: BINARY.squaredDifference,
};

const MAX_RANK = 6;
const MAX_TERMS = 16;

/** y = op(x), with up to two parameters of the operation. */
export function unary(backend: NativeBackend, op: number, x: tf.TensorInfo, p = 0, q = 0): tf.TensorInfo {
  const from = backend.floats(x);
  const y = backend.buffer(from.length);
  backend.addon.unary(op, from, y, p, q);
  return backend.tensor(y, x.shape);
}

interface Broadcast {
  readonly shape: number[];
  /** Absent when the addon's loops have too few axes for it. */
  readonly plan: Int32Array | undefined;
}

const broadcasts = new Map<string, Broadcast>();

/** How `a` and `b` are broadcast against each other. Axes that go together are merged, so that inner loops are long. */
function broadcastOf(a: readonly number[], b: readonly number[]): Broadcast {
  const key = `${a.join()}|${b.join()}`;
  let found = broadcasts.get(key);
  if (found === undefined) {
    found = makeBroadcast(a, b);
    broadcasts.set(key, found);
  }
  return found;
}

function makeBroadcast(a: readonly number[], b: readonly number[]): Broadcast {
  const shape = tf.backend_util.assertAndGetBroadcastShape(a as number[], b as number[]);
  const axes: { size: number; inA: boolean; inB: boolean }[] = [];
  for (let axis = 0; axis < shape.length; axis++) {
    const size = shape[axis] as number;
    if (size === 1) continue;
    const inA = a[axis - shape.length + a.length] === size;
    const inB = b[axis - shape.length + b.length] === size;
    const previous = axes.at(-1);
    if (previous?.inA === inA && previous.inB === inB) previous.size *= size;
    else axes.push({ size, inA, inB });
  }
  if (axes.length === 0) axes.push({ size: 1, inA: true, inB: true });
  if (axes.length > MAX_RANK || sizeOf(shape) === 0) return { shape, plan: undefined };
  const steps = (inside: (axis: { inA: boolean; inB: boolean }) => boolean): number[] => {
    let step = 1;
    return axes
      .toReversed()
      .map((axis) => {
        if (!inside(axis)) return 0;
        const present = step;
        step *= axis.size;
        return present;
      })
      .toReversed();
  };
  const sizes = axes.map((axis) => axis.size);
  const plan = Int32Array.from([axes.length, ...sizes, ...steps((axis) => axis.inA), ...steps((axis) => axis.inB)]);
  return { shape, plan };
}

function binary(backend: NativeBackend, op: number, { a, b }: Two): tf.TensorInfo | undefined {
  if (!isFloat(a) || !isFloat(b)) return undefined;
  const left = backend.floats(a);
  const right = backend.floats(b);
  let shape: number[] | undefined;
  if (sameShape(a.shape, b.shape) || (right.length === 1 && a.shape.length >= b.shape.length)) shape = a.shape;
  else if (left.length === 1 && b.shape.length >= a.shape.length) shape = b.shape;
  if (shape !== undefined) {
    const y = backend.buffer(Math.max(left.length, right.length) * (left.length === 0 || right.length === 0 ? 0 : 1));
    backend.addon.binary(op, left, right, y);
    return backend.tensor(y, shape);
  }
  const broadcast = broadcastOf(a.shape, b.shape);
  if (broadcast.plan === undefined) return undefined;
  const y = backend.buffer(sizeOf(broadcast.shape));
  backend.addon.binaryBroadcast(op, left, right, y, broadcast.plan);
  return backend.tensor(y, broadcast.shape);
}

function filled(backend: NativeBackend, shape: readonly number[], value: number): tf.TensorInfo {
  const y = backend.buffer(sizeOf(shape));
  backend.addon.fill(y, value);
  return backend.tensor(y, shape);
}

function registerFills(registry: Registry): void {
  type FillAttrs = { shape: number[]; value: unknown; dtype?: string };
  registry.override<object, FillAttrs>('Fill', (backend, _inputs, { shape, value, dtype }) => {
    const float = dtype === 'float32' || ((dtype === undefined || dtype === null) && typeof value === 'number');
    return float && typeof value === 'number' ? filled(backend, shape, value) : undefined;
  });
  registry.override<One, object>('ZerosLike', (backend, { x }) =>
    isFloat(x) ? filled(backend, x.shape, 0) : undefined,
  );
  registry.override<One, object>('OnesLike', (backend, { x }) =>
    isFloat(x) ? filled(backend, x.shape, 1) : undefined,
  );
}

function registerWithParameters(registry: Registry): void {
  registry.override<One, { alpha?: number }>('Step', (backend, { x }, { alpha }) =>
    isFloat(x) ? unary(backend, UNARY.step, x, alpha ?? 0) : undefined,
  );
  registry.override<One, { alpha: number }>('LeakyRelu', (backend, { x }, { alpha }) =>
    isFloat(x) ? unary(backend, UNARY.leakyRelu, x, alpha) : undefined,
  );
  type ClipAttrs = { clipValueMin: number; clipValueMax: number };
  registry.override<One, ClipAttrs>('ClipByValue', (backend, { x }, { clipValueMin, clipValueMax }) =>
    isFloat(x) ? unary(backend, UNARY.clip, x, clipValueMin, clipValueMax) : undefined,
  );
}

/** Kernels that go over elements. */
export function registerElementwise(registry: Registry): void {
  for (const [name, op] of Object.entries(UNARY_KERNELS)) {
    registry.override<One, object>(name, (backend, { x }) => (isFloat(x) ? unary(backend, op, x) : undefined));
  }
  for (const [name, op] of Object.entries(BINARY_KERNELS)) {
    registry.override<Two, object>(name, (backend, inputs) => binary(backend, op, inputs));
  }
  registry.override<readonly tf.TensorInfo[], object>('AddN', (backend, terms) => {
    const [first] = terms;
    if (first === undefined || terms.length > MAX_TERMS) return undefined;
    if (!terms.every((term) => isFloat(term) && sameShape(term.shape, first.shape))) return undefined;
    const y = backend.buffer(sizeOf(first.shape));
    backend.addon.addN(y, terms.length, ...terms.map((term) => backend.floats(term)));
    return backend.tensor(y, first.shape);
  });
  registerFills(registry);
  registerWithParameters(registry);
}
