import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';

const folder = import.meta.dirname;
const run = promisify(execFile);

/** What each program must print. */
const expected: Record<string, RegExp> = {
  '00-readme.ts':
    /^conv1 +kept 1\.000\nconv2 +kept 0\.500\ndense1 +kept 0\.500\noutput +kept 1\.000\ntest accuracy 0\.[6-9]/m,
  '01-train-sampled.ts':
    /exact +test accuracy 0\.[6-9].*\ntopK +test accuracy 0\.[6-9](.|\n)*conv2 +topK +0\.500\n(.|\n)*every trainable weight is covered/,
  '02-keras-fit.ts':
    /epoch 3 +loss [01]\.\d+ +accuracy 0\.[5-9]\d+\nhidden: winnerTakeAll, kept 0\.[4-7]\d+ (.|\n)*head: exact, kept 1\.000(.|\n)*stock again: true/,
  '03-schedules.ts':
    / 500 +0\.8182 +0\.0500 +0\.0810 +0\.0536\n(.|\n)*1000 +0\.0000(.|\n)*CONFIG: sgd: .* contains "rate"\./,
  '04-own-method.ts':
    /conv\/kernel +one sample \d\.\d+ +mean of 400 0\.[01]\d+\nhead\/kernel +one sample \d\.\d+ +mean of 400 0\.[01]\d+\nconv: half of the batch, kept 0\.750\nhead: half of the batch, kept 0\.833/,
  '05-own-loop.ts': /epoch 3 +loss [01]\.\d+ +steps 45 +test accuracy 0\.[3-9]\d+\n.*4\.44e-5\n.*left behind: true/,
  '06-checkpoint.ts': /ABORTED: run: stopped at step 17 (.|\n)*resumed: 30 steps, 3 epochs(.|\n)*same bits: true/,
  '07-direct-feedback.ts':
    /step +0 +dense1 (89|90|91)° +dense2 (89|90|91)°\n(.|\n)*step +75 +dense1 [2-5]\d° +dense2 [2-5]\d°\ntest accuracy 0\.[89](.|\n)*feedback: 0\.031 of the memory of floats, 0 multiplications/,
  '08-ensemble.ts': /100 analyses, 10000 forward passes, members run batched\n(.|\n)*RMSE 0\.[01]\d+: below 0\.15/,
  '09-many-ranks.ts':
    /rank 0 of 1 trains on 60 of every 60 examples\nepoch 1 +loss 1\.\d+ .*\n(.|\n)*epoch 3 +loss 0\.[4-7]\d+ +test accuracy 0\.[6-8]/,
  '10-kfac.ts':
    /SGD +loss 2\.\d+ 1\.\d+ 1\.\d+ 0\.[78]\d+\nK-FAC +loss 2\.\d+ 1\.\d+ 0\.\d+ 0\.[34]\d+\nrank 0 of 1: 3 layers, decomposed 4 times, \d+ KiB held/,
};

/** The arguments of node that run a program. */
const argumentsOf = (name: string): string[] => ['--conditions=@frugal/source', '--import', 'tsx', join(folder, name)];

/** What a program prints; a child that exits with another code than 0 rejects. */
async function printed(command: string, args: readonly string[]): Promise<string> {
  return (await run(command, args, { cwd: join(folder, '..'), timeout: 170_000 })).stdout;
}

const programs = readdirSync(folder).filter((name) => /^\d\d-.*\.ts$/.test(name));

test('every program has an expected output', () => {
  expect(Object.keys(expected)).toEqual(programs.sort());
});

test.each(programs)(
  '%s',
  async (name) => {
    expect(await printed(process.execPath, argumentsOf(name))).toMatch(expected[name] as RegExp);
    // The portable engine needs half a minute for the longest.
  },
  180_000,
);

/** The losses of K-FAC that 10-kfac.ts prints, run with these arguments, or by a launcher. */
async function losses(args: readonly string[], launcher: readonly string[] = []): Promise<number[]> {
  const [command = '', ...rest] = [...launcher, process.execPath, ...argumentsOf('10-kfac.ts'), ...args];
  return (/K-FAC +loss (.*)/.exec(await printed(command, rest))?.[1] ?? '').split(' ').map(Number);
}

const mpirun = ['mpirun', '--allow-run-as-root', '--oversubscribe', '-n', '2'];
const hasMpi = await run('mpirun', ['--version']).then(
  ({ stdout }) => stdout.includes('Open MPI'),
  () => false,
);

describe('10-kfac.ts on many ranks', () => {
  let one: number[];
  beforeAll(async () => {
    one = await losses([]);
  }, 180_000);
  const expectSame = (ranks: readonly number[]): void => {
    expect(one).toHaveLength(4);
    expect(ranks).toHaveLength(4);
    for (const [i, loss] of ranks.entries()) expect(Math.abs(loss - one[i]!)).toBeLessThanOrEqual(0.002);
  };

  test('has the same losses on three', { timeout: 180_000 }, async () => {
    expectSame(await losses(['--local', '3']));
  });

  test.skipIf(!hasMpi)(
    `has them under mpirun${hasMpi ? '' : ' (skipped: no Open MPI)'}`,
    { timeout: 180_000 },
    async () => {
      expectSame(await losses([], mpirun));
    },
  );
});

test('programs are short, and say what they print', () => {
  for (const name of programs) {
    const text = readFileSync(join(folder, name), 'utf8');
    expect(text.split('\n').length, name).toBeLessThanOrEqual(60);
    expect(/^\/\/ [^]*?Expected/.test(text), name).toBe(true);
  }
});

test('the README shows the first program as it is', () => {
  const program = readFileSync(join(folder, '00-readme.ts'), 'utf8').replace(/^(\/\/.*\n)+/, '');
  expect(readFileSync(join(folder, '../README.md'), 'utf8')).toContain(program);
});
