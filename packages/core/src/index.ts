/**
 * The training step with its four seams: products, local transforms, exchange, the whole step.
 *
 * @packageDocumentation
 */
export { attach, attachWithin, type Attachment, type SiteReport, type Uncovered } from './attach.js';
export { type Chain, chain } from './chain.js';
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
export { activeEngine, EngineError, type EngineOptions, useEngine } from './engine/ladder.js';
export { loadTensorflow, type Importer, type TensorflowResult } from './engine/tensorflow.js';
export { type ErrorCode, FrugalError, show } from './errors.js';
export { defaultLoss, evaluate, type Evaluation } from './evaluate.js';
export type { FitOptions } from './fit-optimizer.js';
export { batchNorm, type Normalised } from './kernels/batch-norm.js';
export { biasActivation, type FusedActivation } from './kernels/bias-activation.js';
export { softmaxCrossEntropy } from './kernels/cross-entropy.js';
export { dropout } from './kernels/dropout.js';
export { gram, type GramOptions, type Window } from './kernels/gram.js';
export { registerKernels } from './kernels/register.js';
export { signProduct, type Signs } from './kernels/signs.js';
export { putSlices, type Selection, squaredNorms, takeSlices } from './kernels/slices.js';
export { type AdamHyper, adamUpdate, movingAverage, type SgdHyper, sgdUpdate } from './kernels/update.js';
export {
  type LinearAlgebra,
  NotPositiveDefiniteError,
  type SymmetricEigen,
  type ThinSvd,
} from './linalg/algebra.js';
export type { Below } from './layers/below.js';
export { linearAlgebra, openedAlgebra } from './linalg/linear-algebra.js';
export { type Matrix, toMatrix, toTensor } from './linalg/matrix.js';
export { type FloatVector, openVectors, weightedSum } from './linalg/vectors.js';
export { crossEntropy, type Loss, meanSquaredError } from './loss.js';
export type { Method } from './method.js';
export { type Counts, counted, type Epilogue, type ExactProducts, exactProducts, multiplyAdds } from './products.js';
export { autoProgress, bar, jsonLines, type Progress, type ProgressEvent, type ProgressStream } from './progress.js';
export type { Passes, Probe } from './probe.js';
export { type Stream, stream } from './rng.js';
export { averageModel, type Division } from './ranks.js';
export { type Call, mergeRules, type Observer, type Rule, sampledSlices, type SampledSlices } from './rule.js';
export { decodeSafetensors, encodeSafetensors, type NamedArray } from './safetensors.js';
export { type Clock, clockAt, hyper, type Hyper, type Schedule } from './schedule.js';
export { openScope, type Scope } from './scope.js';
export { contraction, type Contraction, type Geometry, type Product, type Site } from './site.js';
export type { Batch, StepMethod, StepReport } from './step.js';
export type { EpochReport, TrainOptions, TrainReport } from './run.js';
export { type Stepper, stepper, type StepperOptions } from './stepper.js';
export { train } from './train.js';
export type { Communicator, Numbers, Peers, Reduction } from './communicator.js';
export type { ExchangeTransform, LocalTransform, Param, State, Transform, Updates } from './transform.js';
