export type { Phase } from './clockwork.js';
export { assign, type Assignment, type Distribution, type FactorSizes, type Placement } from './distribution.js';
export { ekfac, type EkfacOptions } from './ekfac.js';
export { kfac, type KfacMethod } from './kfac.js';
export type { PassedThrough } from './layers.js';
export { type LevenbergMarquardt, levenbergMarquardt, type LevenbergMarquardtOptions } from './levenberg-marquardt.js';
export type { KfacOptions } from './options.js';
export type { KfacReport } from './report.js';
export type { SentBytes } from './team.js';
