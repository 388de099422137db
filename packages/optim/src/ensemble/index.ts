export { type Curve, type CurveOptions, mexicanHat, sine } from './data.js';
export { enkf, type EnkfOptions } from './enkf.js';
export type { EnsembleMethod, EnsembleOptions, EnsembleReport } from './ensemble.js';
export { esmda, type EsmdaOptions, inflationCoefficients } from './esmda.js';
export {
  analyse,
  type AnalysisOptions,
  type AnalysisReport,
  type Inflation,
  type Localisation,
  type Observed,
} from './solve.js';
