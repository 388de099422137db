// Runs a TypeScript file of the workspace from source: node script/source.mjs FILE [ARGUMENTS]
import { spawn } from 'node:child_process';
import { findData } from './data.mjs';

findData();
// Ctrl-C reaches the child as well, which ends in its own time and way.
process.on('SIGINT', () => undefined);
const child = spawn(process.execPath, ['--conditions=@frugal/source', '--import', 'tsx', ...process.argv.slice(2)], {
  stdio: 'inherit',
});
child.on('exit', (status, signal) => process.exit(signal ? 1 : (status ?? 1)));
