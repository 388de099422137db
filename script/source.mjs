// Runs a TypeScript file of the workspace from source: node script/source.mjs FILE [ARGUMENTS]
import { spawnSync } from 'node:child_process';

const { status, signal } = spawnSync(
  process.execPath,
  ['--conditions=@frugal/source', '--import', 'tsx', ...process.argv.slice(2)],
  { stdio: 'inherit' },
);
process.exit(signal ? 1 : (status ?? 1));
