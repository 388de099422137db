// One rank of runs with all-reduce, started by a launcher: all-reduce-rank.ts FOLDER
// Writes the weights of each run, and what it sent, to FOLDER/<rank>.json.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { useEngine } from '@frugal/core';
import { toySgd } from '@frugal/core/testing';
import { allReduce, type ExchangeReport } from '../all-reduce.js';
import { mpi } from '../mpi.js';
import { sampledAllReduce } from '../sampled-all-reduce.js';
import { handTrain } from './data-parallel.js';
import { largestWeights } from './largest-weights.js';

const [, , folder = '.'] = process.argv;
await useEngine('cpu', { log: () => undefined });
const world = await mpi({ timeoutSeconds: 30 });
const links = {
  float32: allReduce({ bucketBytes: 2048 }),
  bfloat16: allReduce({ bucketBytes: 2048, wire: 'bfloat16' }),
  sampled: sampledAllReduce({ bucketBytes: 2048 }),
};
const results: Record<string, unknown> = {};
for (const [name, link] of Object.entries(links)) {
  let report: ExchangeReport | undefined;
  const weights = await handTrain(world, {
    steps: 4,
    parts: [5, 7],
    methods: () => (name === 'sampled' ? [largestWeights(0.4)] : []),
    links: () => [link, toySgd(0.05, 0.9)],
    end: (run) => (report = run.of(link)),
  });
  results[name] = { weights, report };
}
writeFileSync(join(folder, `${world.rank}.json`), JSON.stringify(results));
await world.close();
