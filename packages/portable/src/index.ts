export type { PortableCounters, PortableEngine } from './engine.js';
export { registerPortable } from './engine.js';
