/**
 * The training step with its four seams: products, local transforms, exchange, the whole step.
 *
 * @packageDocumentation
 */
export { attach, type Attachment, type BeginOptions, type SiteReport } from './attach.js';
export { type Chain, openChain } from './chain.js';
export { checkChoice, checkInteger, checkNumber, checkOptions, type Range } from './check.js';
export type { CheckpointOptions } from './checkpoint.js';
export { readInto, tensorOf } from './copies.js';
export {
  batchCount,
  batches,
  type BatchOptions,
  checkDataset,
  type Dataset,
  partOf,
  slice,
  targetWidth,
} from './data.js';
export { diagnose, type Finding, formatFindings } from './engine/doctor.js';
export type { Engine, EngineCounters, EngineName, Rejected } from './engine/engine.js';
export {
  contractOf,
  type EngineAbilities,
  type EngineContract,
  ENGINES,
  KERNELS,
  readsAreFree,
} from './engine/contract.js';
export { activeEngine, EngineError, type EngineOptions, useEngine } from './engine/ladder.js';
export { loadTensorflow, type Importer, type TensorflowResult } from './engine/tensorflow.js';
export { type ErrorCode, FrugalError, show } from './errors.js';
export { defaultLoss, evaluate, type Evaluation } from './evaluate.js';
export type { ChainOptimizer, FitOptions } from './fit-optimizer.js';
export { conv2d, type Conv2dOptions } from './geometries/conv2d.js';
export { dense } from './geometries/dense.js';
export { sitesOf } from './geometries/index.js';
export {
  type Contraction,
  type Counts,
  counted,
  type Epilogue,
  type ExactProducts,
  type ExampleGradients,
  type Geometry,
  multiplyAdds,
  type Operand,
  type Product,
} from './geometry.js';
export { type Group, groups } from './groups.js';
export { batchNorm, type Normalised } from './kernels/batch-norm.js';
export { biasActivation, type FusedActivation } from './kernels/bias-activation.js';
export { softmaxCrossEntropy } from './kernels/cross-entropy.js';
export { dropout } from './kernels/dropout.js';
export { gram, type GramOptions, type Window } from './kernels/gram.js';
export { registerKernels } from './kernels/register.js';
export { signProduct, type Signs } from './kernels/signs.js';
export {
  type Chosen,
  type HostSelection,
  putSlices,
  type Selection,
  selectionOf,
  squaredNorms,
  takeSlices,
} from './kernels/slices.js';
export { type AdamHyper, adamUpdate, movingAverage, type SgdHyper, sgdUpdate } from './kernels/update.js';
export {
  type LinearAlgebra,
  NotPositiveDefiniteError,
  type SymmetricEigen,
  type ThinSvd,
} from './linalg/algebra.js';
export type { CallableLayer, LayerWeight, LinearLayer } from './layers/keras.js';
export type { LayerKind, LayerSite, SiteProduct } from './layers/layer-kind.js';
export { linearAlgebra, unprepared } from './linalg/linear-algebra.js';
export { type Matrix, toMatrix, toTensor } from './linalg/matrix.js';
export { fastestSum, type FloatVector, type WeightedSum, weightedSum } from './linalg/vectors.js';
export type {
  ExchangeLink,
  GradientLink,
  Link,
  OpenedExchange,
  OpenedGradient,
  OpenedLink,
  OpenedUpdate,
  OpenedWeights,
  Param,
  UpdateLink,
  Updates,
  WeightsLink,
} from './link.js';
export { crossEntropy, type Loss, meanSquaredError } from './loss.js';
export type { Method, OpenedMethod } from './method.js';
export type { OpenedMethods } from './open-methods.js';
export type { Opened, Reporting, RunContext, State } from './opened.js';
export type { Pass, PassOptions, Probe, Step, WholeStep } from './pass.js';
export { autoProgress, bar, jsonLines, type Progress, type ProgressEvent, type ProgressStream } from './progress.js';
export { type Stream, stream } from './rng.js';
export { averageModel, type Division } from './ranks.js';
export { type Call, mergeRules, type Observer, type Rule, sampledSlices, type SampledSlices } from './rule.js';
export { decodeSafetensors, encodeSafetensors, type NamedArray } from './safetensors.js';
export { type Clock, clockAt, hyper, type Hyper, type Schedule } from './schedule.js';
export { openScope, type Scope } from './scope.js';
export type { PassMode } from './running-pass.js';
export type { Below, Site } from './site.js';
export type { Uncovered } from './sites.js';
export type { Batch, StepReport } from './step.js';
export type { EpochReport, TrainOptions, TrainReport } from './run.js';
export { type Stepper, stepper, type StepperOptions } from './stepper.js';
export { train } from './train.js';
export { type Communicator, type Numbers, oneRank, type Peers, type Reduction } from './communicator.js';
