import { parseArgs } from 'node:util';
import { decentralized } from './decentralized.js';
import { engine } from './engine.js';
import { ensemble } from './ensemble.js';
import { feedback } from './feedback.js';
import { kfacBench } from './kfac.js';
import { mnist } from './mnist.js';
import type { BenchOptions } from './options.js';
import { smallData } from './small-data.js';
import { wire } from './wire.js';
import { type Results, warnIfBusy, writeResults } from './results.js';

const benches: Record<string, (options: BenchOptions) => Promise<Results>> = {
  decentralized,
  engine,
  ensemble,
  feedback,
  kfac: kfacBench,
  mnist,
  'small-data': smallData,
  wire,
};

const USAGE = `pnpm bench NAME [--quick] [--json FILE] [--seed N] [--report FILE] [--python PATH]
  NAME      one of ${Object.keys(benches).join(', ')}
  --quick   fewer seeds and rounds
  --json    where the results file goes (default bench/results/local/NAME.json)
  --report  where the report with its plots goes (default bench/results/local/NAME.html)
  --python  interpreter whose PyTorch is the rival (default python3)`;

async function main(): Promise<number> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    args: process.argv.slice(2).filter((arg) => arg !== '--'),
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      seed: { type: 'string', default: '1' },
      python: { type: 'string', default: 'python3' },
      report: { type: 'string' },
    },
  });
  const [name = ''] = positionals;
  const bench = benches[name];
  if (!bench) {
    process.stderr.write(`${name === '' ? 'Which benchmark?' : `There is no benchmark ${name}.`}\n${USAGE}\n`);
    return 2;
  }
  warnIfBusy();
  const report = values.report ?? `bench/results/local/${name}.html`;
  const results = await bench({ quick: values.quick, seed: Number(values.seed), python: values.python, report });
  const path = values.json ?? `bench/results/local/${name}.json`;
  writeResults(path, results);
  process.stdout.write(`${JSON.stringify(results.figures, null, 2)}\nwritten to ${path}\n`);
  return 0;
}

process.exit(await main());
