import { describe, expect, it } from 'vitest';
import { clockAt, hyper } from './schedule.js';

describe('hyper', () => {
  it('makes a constant of a number', () => {
    expect(hyper('sgd', 'momentum', 0.9)(clockAt(7))).toBe(0.9);
  });

  it('reads a formula in step, total and t', () => {
    const rate = hyper('sgd', 'learningRate', '0.1 * (1 - t)^0.9');
    expect(rate(clockAt(0, 10))).toBeCloseTo(0.1, 15);
    expect(rate(clockAt(5, 10))).toBeCloseTo(0.1 * 0.5 ** 0.9, 15);
    expect(hyper('a', 'b', 'step < 3 ? 1 : max(2, total / 5)')(clockAt(4, 20))).toBe(4);
  });

  it('needs no total for a formula in step alone', () => {
    expect(hyper('a', 'b', '1 / (1 + step)')(clockAt(3))).toBe(0.25);
    expect(() => hyper('a', 'b', '1 - t')(clockAt(3))).toThrow('totalSteps');
  });

  it.each([
    'import("fs")',
    'a = 1',
    'step.constructor',
    'x + 1',
    '"text"',
    '[1, 2]',
    '1; 2',
    'f(x) = x',
    'evaluate("1")',
    'parse("1")',
    'createUnit("a")',
    'cos',
    'constructor',
    'step["constructor"]',
    '{a: 1}',
    'random()',
    '1 +',
  ])('refuses %s', (formula) => {
    expect(() => hyper('sgd', 'learningRate', formula)).toThrow(/^sgd: .*learningRate/);
  });

  it('checks the range of numbers at once and of schedules when they are read', () => {
    expect(() => hyper('topK', 'keep', 2, { max: 1 })).toThrow('received 2');
    const late = hyper('topK', 'keep', ({ step }) => step, { max: 1 });
    expect(late(clockAt(1))).toBe(1);
    expect(() => late(clockAt(2))).toThrow('keep at step 2');
    expect(() => hyper('a', 'b', () => Number.NaN)(clockAt(4))).toThrow('b at step 4');
  });
});
