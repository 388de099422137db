import * as tf from '@tensorflow/tfjs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { loadAddon } from './addon.js';
import { registerNative } from './index.js';
import { customKernels } from './testing/custom.suite.js';
import { gradients } from './testing/gradient.suite.js';
import { gramRules } from './testing/gram.suite.js';
import { memoryRules } from './testing/memory.suite.js';
import { rows } from './testing/rows.suite.js';
import { stockKernels } from './testing/stock.suite.js';

function reasonOfAbsence(): string | undefined {
  try {
    loadAddon();
    return undefined;
  } catch (error) {
    return (error as Error).message.replaceAll(/\s*\n\s*/g, ' ');
  }
}

function registration(): void {
  it('is idempotent and describes itself', () => {
    const engine = registerNative();
    expect(registerNative()).toBe(engine);
    expect(engine.name).toBe('native');
    expect(engine.detail).toMatch(/^oneDNN \d+\.\d+\.\d+, \S+, \d+ threads$/);
    expect(tf.findBackend('native')).not.toBeNull();
  });
  it('changes the number of threads', () => {
    const engine = registerNative();
    const before = engine.threads;
    expect(registerNative({ threads: 1 }).threads).toBe(1);
    expect(registerNative({ threads: before }).threads).toBe(before);
    expect(() => registerNative({ threads: 0 })).toThrow(RangeError);
  });
}

const absence = reasonOfAbsence();

if (absence === undefined) {
  describe('native engine', () => {
    registerNative();
    describe('registration', registration);
    describe('stock kernels', stockKernels);
    describe('custom kernels', customKernels);
    describe('Gram matrices', gramRules);
    describe('memory', memoryRules);
    describe('gradients', gradients);
    describe('rows', rows);
  });
} else {
  describe.skip(`native engine absent: ${absence}`, () => {
    it('is not tested', () => undefined);
  });
}

describe('loading', () => {
  afterEach(() => void vi.unstubAllEnvs());
  it('says that it is switched off, and how to switch it on', () => {
    vi.stubEnv('FRUGAL_NATIVE', 'off');
    expect(() => loadAddon()).toThrow(/FRUGAL_NATIVE=off.*Unset/);
  });
});
