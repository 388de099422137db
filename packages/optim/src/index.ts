export { type AdamForm, type AdamOptions, adam } from './adam.js';
export { type AdamWOptions, adamw } from './adamw.js';
export { type ClipByGlobalNormOptions, clipByGlobalNorm } from './clip.js';
export type { DecayFilter } from './decay.js';
export {
  analyse,
  type AnalysisOptions,
  type AnalysisReport,
  type Curve,
  type CurveOptions,
  enkf,
  type EnkfOptions,
  type EnsembleMethod,
  type EnsembleOptions,
  type EnsembleReport,
  esmda,
  type EsmdaOptions,
  friedman,
  type Inflation,
  inflationCoefficients,
  type Localisation,
  mexicanHat,
  type Observed,
  sine,
} from './ensemble/index.js';
export {
  type Assignment,
  assign,
  type Distribution,
  ekfac,
  type EkfacOptions,
  type FactorSizes,
  kfac,
  type KfacMethod,
  type KfacOptions,
  type KfacReport,
  type LevenbergMarquardt,
  levenbergMarquardt,
  type LevenbergMarquardtOptions,
  type PassedThrough,
  type Phase,
  type Placement,
  type SentBytes,
} from './kfac/index.js';
export { type LarsOptions, lars } from './lars.js';
export { constant } from './schedules/constant.js';
export { type CosineOptions, cosine } from './schedules/cosine.js';
export { type DemonOptions, demon } from './schedules/demon.js';
export { type ExponentialOptions, exponential } from './schedules/exponential.js';
export { type LinearOptions, linear } from './schedules/linear.js';
export {
  type OneCycleMomentumOptions,
  type OneCycleOptions,
  oneCycle,
  oneCycleMomentum,
} from './schedules/one-cycle.js';
export { type RexOptions, rex } from './schedules/rex.js';
export { type StepDecayOptions, stepDecay } from './schedules/step-decay.js';
export { type WarmupOptions, warmup } from './schedules/warmup.js';
export { type SgdOptions, sgd } from './sgd.js';
export { type ShampooOptions, shampoo } from './shampoo.js';
export { type SoapOptions, soap } from './soap.js';
export type { AverageReport } from './weights/average.js';
export { type EmaOptions, ema } from './weights/ema.js';
export { type LookaheadOptions, lookahead } from './weights/lookahead.js';
export { type SwaOptions, swa } from './weights/swa.js';
export { type TailAverageOptions, tailAverage } from './weights/tail-average.js';
