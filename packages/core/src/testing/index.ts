export { describeEngines, expectNoLeak, relativeError } from './engines.js';
