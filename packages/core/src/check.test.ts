import { describe, expect, it } from 'vitest';
import { checkChoice, checkInteger, checkNumber, checkOptions } from './check.js';
import { FrugalError } from './errors.js';

describe('checks of options', () => {
  it('say owner, name, expected interval and what was received', () => {
    expect(() => checkNumber('topK', 'keep', 1.5, { min: 0, aboveMin: true, max: 1 })).toThrow(
      'topK: expected keep in (0, 1] but received 1.5.',
    );
    expect(() => checkNumber('sgd', 'momentum', Number.NaN, { min: 0, max: 1, belowMax: true })).toThrow(
      'sgd: expected momentum in [0, 1) but received NaN.',
    );
    expect(() => checkNumber('sgd', 'learningRate', '0.1')).toThrow('to be a finite number but received "0.1"');
    expect(() => checkInteger('train', 'epochs', 1.5, { min: 1 })).toThrow(
      'train: expected epochs to be an integer but received 1.5.',
    );
    expect(() => checkChoice('topK', 'mode', 'both', ['through', 'backward'])).toThrow(
      `one of 'through', 'backward' but received "both"`,
    );
  });

  it('let what fits through unchanged', () => {
    expect(checkNumber('a', 'b', 0.5, { min: 0, max: 1 })).toBe(0.5);
    expect(checkInteger('a', 'b', 3, { min: 3 })).toBe(3);
    expect(checkChoice('a', 'b', 'x', ['x', 'y'])).toBe('x');
  });

  it('refuse a misspelt option instead of ignoring it', () => {
    expect(() => checkOptions('sgd', { learningrate: 1 }, ['learningRate'])).toThrow(
      'expected options among learningRate but received "learningrate"',
    );
  });

  it('throw errors that are recognised across copies of the package', () => {
    const copy = { [Symbol.for('frugal.error')]: true, code: 'CONFIG' };
    expect(FrugalError.is(copy, 'CONFIG')).toBe(true);
    expect(FrugalError.is(copy, 'DATA')).toBe(false);
    expect(FrugalError.is(new Error('no'))).toBe(false);
  });
});
