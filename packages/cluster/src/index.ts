/**
 * Communicators: `alone` for one rank, `localCluster` for many ranks in one process, `mpi` for one rank per process.
 * Links that sum gradients over ranks: `allReduce` all of them, `sampledAllReduce` what was sampled.
 * Decentralized links, which average weights with neighbours: `decentlam` and what it is compared with, over topologies as `ring`.
 *
 * @packageDocumentation
 */
export { allReduce, type AllReduceOptions, type ExchangeReport } from './all-reduce.js';
export { alone } from './alone.js';
export { awcDmsgd } from './decentralized/awc-dmsgd.js';
export { d2 } from './decentralized/d2.js';
export { daDmsgd } from './decentralized/da-dmsgd.js';
export { decentlam } from './decentralized/decentlam.js';
export { dmsgd } from './decentralized/dmsgd.js';
export { dsgd } from './decentralized/dsgd.js';
export { edm } from './decentralized/edm.js';
export type {
  DecentralizedLink,
  DecentralizedOptions,
  DecentralizedReport,
  MomentumOptions,
  OpenedRecursion,
} from './decentralized/link.js';
export { momentumTracking } from './decentralized/momentum-tracking.js';
export { qgDmsgd } from './decentralized/qg-dmsgd.js';
export type { RankVectors, Vector } from './decentralized/recursion.js';
export { simulate, type SimulateOptions } from './decentralized/simulate.js';
export { slowMo, type SlowMoOptions } from './decentralized/slow-mo.js';
export { onePeerHypercube } from './topology/hypercube.js';
export { type EnvironmentRank, environmentRank } from './environment.js';
export { type LocalCluster, localCluster, type LocalOptions } from './local.js';
export { mpi, type MpiCommunicator, type MpiOptions } from './mpi.js';
export { sampledAllReduce } from './sampled-all-reduce.js';
export {
  type Edge,
  fromGraph,
  fullyConnected,
  mesh,
  onePeerExponential,
  ring,
  star,
  staticExponential,
  symmetricExponential,
} from './topology/graphs.js';
export {
  isDoublyStochastic,
  isSymmetric,
  lazy,
  mixingRate,
  type Neighbours,
  neighbours,
  smallestEigenvalue,
  spectralGap,
  type Topology,
} from './topology/topology.js';
export type { WireFormat } from './wire.js';
