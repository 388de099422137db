import { parseArgs } from 'node:util';
import { diagnose, formatFindings } from './engine/doctor.js';

const USAGE = `frugal doctor   say which engines work on this machine, which do not, why, and what to do
frugal help     print this`;

async function main(): Promise<number> {
  const { positionals } = parseArgs({ allowPositionals: true });
  switch (positionals[0]) {
    case 'doctor':
      process.stdout.write(`${formatFindings(await diagnose())}\n`);
      return 0;
    case 'help':
    case undefined:
      process.stdout.write(`${USAGE}\n`);
      return 0;
    default:
      process.stderr.write(`frugal: there is no command ${positionals[0]}.\n${USAGE}\n`);
      return 2;
  }
}

process.exit(await main());
