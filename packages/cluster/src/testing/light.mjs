// Given to node by --import where tests start ranks: '@frugal/core' is then only the files that this package uses, without
// TensorFlow.js, which would be most of the time of a rank that lives for a second. A rank that needs all of it is started with
// FRUGAL_TEST_CORE=whole.
import { register } from 'node:module';

const files = ['errors', 'check', 'rng', 'linalg/vectors'].map((name) => new URL(`../../../core/src/${name}.ts`, import.meta.url).href);
const core = `data:text/javascript,${encodeURIComponent(files.map((file) => `export * from ${JSON.stringify(file)};`).join('\n'))}`;
const hooks = `export const resolve = (name, context, next) =>
  name === '@frugal/core' ? { url: ${JSON.stringify(core)}, format: 'module', shortCircuit: true } : next(name, context);`;
if (process.env['FRUGAL_TEST_CORE'] !== 'whole') register(`data:text/javascript,${encodeURIComponent(hooks)}`);
