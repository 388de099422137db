import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

type Floats = Float32Array;
type Optional = Float32Array | null;

/** The functions of the C++ addon (cpp/addon.cpp). Outputs are arguments; nothing is checked but the types of arrays. */
export interface Addon {
  fill(y: Floats, value: number): void;
  unary(op: number, x: Floats, y: Floats, p: number, q: number): void;
  /** An operand shorter than y is one number. */
  binary(op: number, a: Floats, b: Floats, y: Floats): void;
  /** The plan: rank, then sizes, steps of a and steps of b, innermost axis last. */
  binaryBroadcast(op: number, a: Floats, b: Floats, y: Floats, plan: Int32Array): void;
  addN(y: Floats, count: number, ...terms: Floats[]): void;
  biasActivation(x: Floats, bias: Floats, y: Floats, relu: number): void;
  reluBiasGrad(dy: Floats, y: Floats, dx: Floats, dbias: Floats): void;
  dropout(x: Floats, y: Floats, threshold: number, keepScale: number, seed: number): void;
  reduce(op: number, x: Floats, y: Floats, outer: number, count: number, inner: number, scale: number): void;
  argMax(x: Floats, y: Int32Array, columns: number): void;
  norms(x: Floats, y: Floats, outer: number, count: number, inner: number): void;
  expand(x: Floats, y: Floats, outer: number, count: number, inner: number, scale: number): void;
  softmax(x: Floats, y: Floats, columns: number): void;
  softmaxCrossEntropy(
    logits: Floats,
    labels: Floats,
    loss: Floats,
    dlogits: Floats,
    correct: Floats,
    rows: number,
    columns: number,
  ): void;
  batchNorm(
    x: Floats,
    gamma: Floats,
    beta: Floats,
    residual: Optional,
    y: Floats,
    mean: Floats,
    variance: Floats,
    invStd: Floats,
    epsilon: number,
    relu: number,
  ): void;
  batchNormGrad(
    dy: Floats,
    x: Floats,
    y: Optional,
    gamma: Floats,
    mean: Floats,
    invStd: Floats,
    dx: Floats,
    dgamma: Floats,
    dbeta: Floats,
    dresidual: Optional,
    beta: Optional,
  ): void;
  batchNormInference(
    x: Floats,
    mean: Floats,
    variance: Floats,
    gamma: Optional,
    beta: Optional,
    y: Floats,
    epsilon: number,
  ): void;
  maxPool(x: Floats, y: Floats, window: Int32Array): void;
  maxPoolGrad(dy: Floats, x: Floats, y: Floats, dx: Floats, window: Int32Array): void;
  avgPool(x: Floats, y: Floats, window: Int32Array): void;
  avgPoolGrad(dy: Floats, dx: Floats, window: Int32Array): void;
  /** The plan: rank, then sizes of y and steps in x, innermost axis last. */
  transpose(x: Floats, y: Floats, plan: Int32Array): void;
  take(x: Floats, indices: Int32Array, scales: Optional, y: Floats, outer: number, count: number, inner: number): void;
  put(x: Floats, indices: Int32Array, scales: Optional, y: Floats, outer: number, count: number, inner: number): void;
  /** y = e·Bᵀ, B of signs as bits, in `depth` rows of `stride` words. */
  signProduct(
    e: Floats,
    bits: Int32Array,
    y: Floats,
    rows: number,
    depth: number,
    columns: number,
    stride: number,
  ): void;
  /** into = Σ weights[k]·parts[k], of 1 to 16 parts, whose number and lengths are checked. */
  weightedSum(into: Floats, weights: Float64Array, ...parts: Floats[]): void;
  sgd(
    w: Floats,
    g: Floats,
    v: Optional,
    learningRate: number,
    momentum: number,
    nesterov: number,
    weightDecay: number,
    coupledDecay: number,
    columns: number,
    chosen: Int32Array | null,
    norms: Optional,
  ): void;
  adam(
    w: Floats,
    g: Floats,
    m: Floats,
    v: Floats,
    learningRate: number,
    beta1: number,
    beta2: number,
    gain: number,
    epsilon: number,
    weightDecay: number,
    correction1: number,
    correction2: number,
  ): void;
  matMul(
    a: Floats,
    b: Floats,
    bias: Optional,
    c: Floats,
    batchA: number,
    batchB: number,
    rows: number,
    columns: number,
    depth: number,
    transposeA: number,
    transposeB: number,
    relu: number,
  ): void;
  convForward(x: Floats, filter: Floats, bias: Optional, y: Floats, shape: Int32Array, relu: number): void;
  convInputGrad(dy: Floats, filter: Floats, dx: Floats, shape: Int32Array): void;
  convFilterGrad(x: Floats, dy: Floats, dfilter: Floats, shape: Int32Array): void;
  /** y [n, n] = Σ r·rᵀ over the rows of x [rows, columns], each followed by a 1 if asked. */
  gram(x: Floats, y: Floats, rows: number, columns: number, ones: number): void;
  /** The same over the patches of a convolution's window. */
  gramWindow(x: Floats, y: Floats, shape: Int32Array, ones: number): void;
  setThreads(threads: number): void;
  threads(): number;
  instructionSet(): string;
  libraryVersion(): string;
  newBuffer(bytes: number): ArrayBuffer;
  /** 'OpenBLAS 0.3.21, SkylakeX'. This and the other lapack functions throw the reason where there is no LAPACK. */
  lapackDetail(): string;
  /** a [n, n], symmetric, becomes its eigenvectors, in columns. */
  lapackEigen(a: Float64Array, values: Float64Array, n: number): void;
  /** The same on another thread: both arrays are its own until the promise settles. */
  lapackEigenAsync(a: Float64Array, values: Float64Array, n: number): Promise<void>;
  /** The same, but returns a function that waits for it: for code that cannot await. */
  lapackEigenStart(a: Float64Array, values: Float64Array, n: number): () => void;
  /** a [n, n] becomes its lower factor. Returns 0, or the pivot, counted from 1, that is not positive. */
  lapackCholesky(a: Float64Array, n: number): number;
  /** b [n, columns] becomes the solution. */
  lapackCholeskySolve(l: Float64Array, b: Float64Array, n: number, columns: number): void;
  /** a [rows, columns] is lost. */
  lapackSvd(a: Float64Array, u: Float64Array, s: Float64Array, v: Float64Array, rows: number, columns: number): void;
}

/** Numbers of the unary operations: those of `Unary` in cpp/loops.hpp. */
export const UNARY = {
  relu: 0,
  relu6: 1,
  step: 2,
  square: 3,
  negate: 4,
  exp: 5,
  log: 6,
  sqrt: 7,
  rsqrt: 8,
  sigmoid: 9,
  tanh: 10,
  abs: 11,
  clip: 12,
  elu: 13,
  leakyRelu: 14,
  scale: 15,
} as const;

/** Numbers of the binary operations: those of `Binary` in cpp/loops.hpp. */
export const BINARY = {
  add: 0,
  subtract: 1,
  multiply: 2,
  divide: 3,
  maximum: 4,
  minimum: 5,
  squaredDifference: 6,
  reluGrad: 7,
} as const;

/** Numbers of the reductions: those of `Reduction` in cpp/loops.hpp. */
export const REDUCTION = { sum: 0, max: 1 } as const;

const REMEDY = `To build it: run script/bootstrap (or "node packages/native/build.mjs"); on Debian it needs the packages \
libdnnl-dev, g++ and cmake.`;

/** Loads the addon: the local build, or else the package of this platform. Throws with all that was tried. */
export function loadAddon(): Addon {
  if (process.env['FRUGAL_NATIVE'] === 'off') {
    throw new Error('The native engine is switched off: the environment has FRUGAL_NATIVE=off. Unset it to use it.');
  }
  // libgomp reads these once, when it is loaded with the addon. A thread that sleeps between two kernels costs each of
  // them tens of microseconds to wake on a virtual machine, so threads wait actively, for a third of libgomp's default.
  // On a machine that does other work at the same time, a smaller GOMP_SPINCOUNT is faster.
  process.env['OMP_NUM_THREADS'] ??= String(availableParallelism());
  process.env['GOMP_SPINCOUNT'] ??= '100000';
  const require = createRequire(import.meta.url);
  const candidates = [
    fileURLToPath(new URL('../build/frugal_native.node', import.meta.url)),
    `@frugal/native-${process.platform}-${process.arch}`,
  ];
  const failures: string[] = [];
  for (const candidate of candidates) {
    try {
      return require(candidate) as Addon;
    } catch (error) {
      failures.push(`  ${candidate}: ${(error as Error).message.split('\n')[0] ?? ''}`);
    }
  }
  throw new Error(['The native engine could not be loaded. Tried:', ...failures, REMEDY].join('\n'));
}
