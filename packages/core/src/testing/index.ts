/**
 * Helpers for tests of Frugal and of methods built on it. They need vitest.
 *
 * @packageDocumentation
 */
export { COSTLY, countingReads, type Reads, useCostlyBackend } from './costly.js';
export { describeEngines, expectNoLeak, relativeError } from './engines.js';
export { meanGradient, runRanks, twinRanks } from './ranks.js';
export { trainFor } from './stopping.js';
export { toyImages, toyModel, toySgd, weightsOf } from './toy.js';
