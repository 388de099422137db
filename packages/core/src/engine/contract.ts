import type { EngineName } from './engine.js';

/** What an engine can do that the step asks about. */
export interface EngineAbilities {
  /** Its tensors lie in the main memory, so reading a number makes nobody wait. Elsewhere no step reads one. */
  readonly freeReads: boolean;
  /** Updates of weights work in place: it has the kernels of {@link KERNELS} `update`. */
  readonly inPlace: boolean;
  /** It has threads. */
  readonly threads: boolean;
}

/** An engine as all that picks, examines and tests engines knows it. */
export interface EngineContract {
  /** Name for `useEngine`. */
  readonly name: EngineName;
  /** Names of its TensorFlow.js backend. */
  readonly backends: readonly string[];
  /** Optional packages behind it, the best first. */
  readonly packages?: readonly string[];
  /** What it can do. */
  readonly can: EngineAbilities;
}

/** The engines, in the order in which `frugal doctor` looks at them. The only list of them. */
export const ENGINES = [
  {
    name: 'tensorflow',
    backends: ['tensorflow'],
    packages: ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'],
    can: { freeReads: false, inPlace: false, threads: true },
  },
  { name: 'native', backends: ['native'], can: { freeReads: true, inPlace: true, threads: true } },
  { name: 'portable', backends: ['portable', 'wasm'], can: { freeReads: true, inPlace: false, threads: false } },
  { name: 'cpu', backends: ['cpu'], can: { freeReads: true, inPlace: false, threads: false } },
] as const satisfies readonly EngineContract[];

/** Names of the engines. */
export const ENGINE_NAMES = ENGINES.map(({ name }) => name);

/**
 * Kernels by name. `must`: what the exact step of dense layers and convolutions runs, forward and back; an engine without one is
 * none. `may`: fused forms of Frugal's own, for which every engine without them has a composite of standard operations.
 * `update`: updates in place, which have no composite, since a kernel that changes its inputs is no operation.
 */
export const KERNELS = {
  must: [
    'Add',
    'AddN',
    'ArgMax',
    'AvgPool',
    'AvgPoolGrad',
    'BatchMatMul',
    'Cast',
    'Concat',
    'Conv2D',
    'Conv2DBackpropFilter',
    'Conv2DBackpropInput',
    'Equal',
    'Exp',
    'Fill',
    'FusedConv2D',
    'GatherV2',
    'Identity',
    'Log',
    'MaxPool',
    'MaxPoolGrad',
    'Maximum',
    'Mean',
    'Minimum',
    'Multiply',
    'Neg',
    'Pack',
    'PadV2',
    'RealDiv',
    'Relu',
    'Reshape',
    'Rsqrt',
    'Select',
    'Sigmoid',
    'Slice',
    'Softmax',
    'Sqrt',
    'Square',
    'SquaredDifference',
    'Step',
    'StridedSlice',
    'Sub',
    'Sum',
    'Tanh',
    'Transpose',
    'ZerosLike',
    '_FusedMatMul',
  ],
  may: [
    'FrugalLinear',
    'FrugalBiasActivation',
    'FrugalReluBiasGrad',
    'FrugalBatchNorm',
    'FrugalBatchNormGrad',
    'FrugalSoftmaxCrossEntropy',
    'FrugalTake',
    'FrugalPut',
    'FrugalNorms',
    'FrugalSignProduct',
    'FrugalGram',
    'FrugalDropout',
  ],
  update: ['FrugalSgd', 'FrugalAdam'],
} as const;

/** The contract of the engine behind a backend; undefined for a backend that is none of ours. */
export function contractOf(backend: string): EngineContract | undefined {
  return (ENGINES as readonly EngineContract[]).find(({ backends }) => backends.includes(backend));
}

/** Does it cost nothing to read a number from this backend? Not where nothing is known of it. */
export function readsAreFree(backend: string): boolean {
  return contractOf(backend)?.can.freeReads ?? false;
}
