// Runs every check and counts: each stage is one, the tests count one by one.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { findData } from './data.mjs';

findData();

const bin = (name) => `node_modules/.bin/${name}`;
const results = '.cache/tests.json';
mkdirSync('.cache', { recursive: true });
rmSync(results, { force: true });

const stages = [
  ['types', bin('tsc'), ['-b']],
  ['lint', bin('eslint'), ['.', '--max-warnings', '0']],
  ['format', bin('biome'), ['format', '.']],
  ['tests', bin('vitest'), ['run', '--reporter=dot', '--reporter=json', `--outputFile.json=${results}`]],
  ['documentation', bin('typedoc'), []],
];

let passed = 0;
let failed = 0;
let skipped = 0;
const skippedSuites = new Set();
for (const [name, command, args] of stages) {
  const started = performance.now();
  const quiet = name !== 'tests';
  const { status, stdout, stderr } = spawnSync(command, args, {
    stdio: quiet ? 'pipe' : 'inherit',
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  const ok = status === 0;
  if (!ok && quiet) process.stdout.write(`${stdout}${stderr}`);
  ok ? passed++ : failed++;
  console.log(`${ok ? '✓' : '✗'} ${name} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
}
try {
  const report = JSON.parse(readFileSync(results, 'utf8'));
  passed += report.numPassedTests;
  failed += report.numFailedTests;
  skipped += report.numPendingTests;
  for (const file of report.testResults) {
    for (const { ancestorTitles, status } of file.assertionResults) {
      if (status === 'skipped' || status === 'pending') skippedSuites.add(ancestorTitles.join(' › '));
    }
  }
} catch (error) {
  console.log(`✗ the tests left no readable results: ${error.message}`);
  failed++;
}
for (const title of skippedSuites) console.log(`skipped: ${title}`);
process.exitCode = failed === 0 ? 0 : 1;
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
