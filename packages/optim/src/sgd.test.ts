import { FrugalError, type Hyper, type Param } from '@frugal/core';
import { describeEngines, expectNoLeak, relativeError } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { demon } from './schedules/demon.js';
import { linear } from './schedules/linear.js';
import { type SgdOptions, sgd } from './sgd.js';
import { fusedStep, paramOf, pureStep, scopeAt, trace } from './testing/bench.js';
import { golden } from './testing/golden.js';

/** float32 arithmetic: 2^-24 per operation, about ten operations per step. */
const FLOAT32 = 1e-6;

const one = { start: [0], gradient: () => [1], steps: 3 };

await describeEngines('sgd', () => {
  test.each([
    ['update', pureStep],
    ['apply', fusedStep],
  ])('by hand, through %s', (_name, by) => {
    const run = (options: SgdOptions, shape = [1], start = [0]): number[] =>
      trace(sgd(options), { ...one, by, shape, start }).map(([w]) => w as number);
    // v = 1, 1.9, 2.71; w = −0.1 · (1, 2.9, 5.61)
    expect(relativeError(run({ learningRate: 0.1, momentum: 0.9 }), [-0.1, -0.29, -0.561])).toBeLessThan(FLOAT32);
    // g + 0.9 v = 1.9, 2.71, 3.439; w = −0.1 · (1.9, 4.61, 8.049)
    const nesterov = run({ learningRate: 0.1, momentum: 0.9, nesterov: true });
    expect(relativeError(nesterov, [-0.19, -0.461, -0.8049])).toBeLessThan(FLOAT32);
    // Rank 2 decays: w ← 0.95 w − 0.1, from 2: 1.8, 1.61, 1.4295
    const decayed = run({ learningRate: 0.1, weightDecay: 0.5 }, [1, 1], [2]);
    expect(relativeError(decayed, [1.8, 1.61, 1.4295])).toBeLessThan(FLOAT32);
    // Rank 1 does not, unless told to.
    expect(relativeError(run({ learningRate: 0.1, weightDecay: 0.5 }, [1], [2]), [1.9, 1.8, 1.7])).toBeLessThan(
      FLOAT32,
    );
    const told = run({ learningRate: 0.1, weightDecay: 0.5, decay: () => true }, [1], [2]);
    expect(relativeError(told, [1.8, 1.61, 1.4295])).toBeLessThan(FLOAT32);
  });

  test("PyTorch's SGD over ten steps", () => {
    const { start, gradients, weights } = golden();
    const cases: Record<string, SgdOptions> = {
      sgd: { learningRate: 0.1 },
      momentum: { learningRate: 0.1, momentum: 0.9 },
      nesterov: { learningRate: 0.1, momentum: 0.9, nesterov: true },
    };
    for (const [name, options] of Object.entries(cases)) {
      const expected = (weights[name] ?? []).flat();
      for (const by of [pureStep, fusedStep]) {
        const rows = trace(sgd(options), { start, gradient: (step) => gradients[step] ?? [], steps: 10, by });
        expect(relativeError(rows.flat(), expected), name).toBeLessThan(FLOAT32);
      }
    }
  });

  test('update and apply give the same weights', () => {
    const gradient = (step: number, w: Float32Array): Float32Array => w.map((x, i) => x + Math.sin(step + i));
    const options = { start: [1, -2, 3, 0.5, -0.25, 4], shape: [2, 3], gradient, steps: 20 };
    for (const nesterov of [true, false]) {
      const make = (): ReturnType<typeof sgd> =>
        sgd({ learningRate: linear({ initial: 0.1 }), momentum: demon(), nesterov, weightDecay: '0.01 * (1 - t)' });
      const pure = trace(make(), { ...options, by: pureStep });
      const fused = trace(make(), { ...options, by: fusedStep });
      // 20 steps of float32 rounding, in another order.
      expect(relativeError(fused.flat(), pure.flat())).toBeLessThan(1e-5);
    }
  });

  test('no tensors are left over 10 steps, and none after dispose', async () => {
    const params = [paramOf([1, 2, 3, 4], [2, 2], 'kernel'), paramOf([1, 2], [2], 'bias')];
    const before = tf.memory().numTensors;
    const link = sgd({ learningRate: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.1 });
    link.init(params);
    const updates = new Map(params.map(({ name, value }) => [name, tf.onesLike(value)] as const));
    await expectNoLeak(() => {
      for (let step = 0; step < 10; step++) (step % 2 ? pureStep : fusedStep)(link, updates, params, scopeAt(step));
    });
    link.dispose();
    tf.dispose([...updates.values()]);
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose(params.map(({ value }) => value));
  });
});

describe('state and hyper-parameters', () => {
  beforeAll(() => tf.setBackend('cpu'));
  const kernel = (): Param => paramOf([1, 2], [1, 2], 'dense/kernel');

  test('a velocity per weight, by name; none for momentum 0', () => {
    const param = kernel();
    const link = sgd({ learningRate: 0.1, momentum: 0.9 });
    link.init([param]);
    expect([...link.state().keys()]).toEqual(['sgd/velocity/dense/kernel']);
    expect(link.state().get('sgd/velocity/dense/kernel')?.trainable).toBe(false);
    link.dispose();
    expect(link.state().size).toBe(0);
    const plain = sgd({ learningRate: 0.1 });
    plain.init([param]);
    expect(plain.state().size).toBe(0);
    const scheduled = sgd({ learningRate: 0.1, momentum: () => 0 });
    scheduled.init([param]);
    expect(scheduled.state().size).toBe(1);
    scheduled.dispose();
  });

  test('a state that is restored continues the run bit by bit', () => {
    const gradient = (param: Param, step: number): tf.Tensor => tf.mul(param.value, 1 + step);
    const run = (param: Param, link: ReturnType<typeof sgd>, from: number, to: number): void => {
      for (let s = from; s < to; s++) {
        tf.tidy(() => fusedStep(link, new Map([[param.name, gradient(param, s)]]), [param], scopeAt(s, 8)));
      }
    };
    const make = (): ReturnType<typeof sgd> => sgd({ learningRate: 0.01, momentum: demon() });
    const [param, copy] = [kernel(), kernel()];
    const [link, second] = [make(), make()];
    link.init([param]);
    run(param, link, 0, 4);
    second.init([copy]);
    copy.value.assign(param.value.clone());
    for (const [name, variable] of second.state()) variable.assign((link.state().get(name) as tf.Variable).clone());
    run(param, link, 4, 8);
    run(copy, second, 4, 8);
    expect([...copy.value.dataSync()]).toEqual([...param.value.dataSync()]);
  });

  test('weights without a gradient stay as they are', () => {
    const params = [kernel(), paramOf([5], [1], 'frozen')];
    const link = sgd({ learningRate: 1, momentum: 0.5, weightDecay: 0.5, decay: () => true });
    link.init(params);
    const deltas = link.update(new Map([['dense/kernel', tf.ones([1, 2])]]), params, scopeAt(0));
    expect([...deltas.keys()]).toEqual(['dense/kernel']);
    link.dispose();
  });

  test('a weight that init has not seen is an error', () => {
    const link = sgd({ learningRate: 1, momentum: 0.5 });
    expect(() => link.update(new Map(), [kernel()], scopeAt(0))).toThrow(/init.*dense\/kernel/);
  });

  test('says its values at a step', () => {
    const link = sgd({ learningRate: '0.1 * (1 - t)', momentum: demon(), weightDecay: 0.5 });
    const values = link.hyperparameters?.(scopeAt(50, 100));
    expect(values?.['learningRate']).toBeCloseTo(0.05, 15);
    expect(values?.['momentum']).toBeCloseTo(0.81818, 5);
    expect(values?.['weightDecay']).toBe(0.5);
    expect(sgd({ learningRate: 0.1 }).hyperparameters?.(scopeAt(0))).toEqual({ learningRate: 0.1, momentum: 0 });
  });
});

describe('formulas', () => {
  const rate = (learningRate: Hyper, step: number, total?: number): number | undefined =>
    sgd({ learningRate }).hyperparameters?.(scopeAt(step, total))['learningRate'];

  test('are arithmetic in step, total and t', () => {
    expect(rate('0.1 * (1 - t)^0.9', 25, 100)).toBeCloseTo(0.1 * 0.75 ** 0.9, 15);
    expect(rate('step < 3 ? 1 : 1 / sqrt(step)', 4)).toBeCloseTo(0.5, 15);
    expect(rate('max(0.01, cos(pi * step / total))', 100, 100)).toBe(0.01);
    expect(() => rate('1 - t', 3)).toThrow(/totalSteps/);
  });

  test.each([
    'import("fs")',
    'a=1',
    'step.constructor',
    'x',
    '3 cm',
    '[1, 2]',
    '[1, 2; 3, 4]',
    '{a: 1}',
    '"0.1"',
    'f(x) = x',
    '1; 2',
    'step["constructor"]',
    'evaluate("1")',
    'parse("1")',
    'random()',
    'constructor',
    '0.1 *',
    '',
  ])('%s is refused', (formula) => {
    expect(() => sgd({ learningRate: formula })).toThrow(FrugalError);
    expect(() => sgd({ learningRate: formula })).toThrow(/sgd: .*learningRate/);
  });
});

describe('refusals', () => {
  test('unknown options', () => {
    expect(() => sgd({ learningRate: 0.1, momentun: 0.9 } as SgdOptions)).toThrow(/received "momentun".*spelling/);
    expect(() => sgd({ lr: 0.1 } as unknown as SgdOptions)).toThrow(/received "lr"/);
  });

  test('values outside their range', () => {
    expect(() => sgd({} as SgdOptions)).toThrow(/learningRate/);
    expect(() => sgd({ learningRate: -1 })).toThrow(/learningRate in \[0, ∞\)/);
    expect(() => sgd({ learningRate: 0.1, momentum: 1 })).toThrow(/momentum in \[0, 1\)/);
    expect(() => sgd({ learningRate: 0.1, weightDecay: -1 })).toThrow(/weightDecay/);
    expect(() => sgd({ learningRate: 0.1, decay: true as unknown as () => boolean })).toThrow(/decay to be a function/);
  });

  test('nesterov without momentum', () => {
    expect(() => sgd({ learningRate: 0.1, nesterov: true })).toThrow(/expected a momentum with nesterov/);
    expect(() => sgd({ learningRate: 0.1, nesterov: 'yes' as unknown as boolean })).toThrow(/nesterov to be true or/);
  });

  test('a schedule that returns NaN, with the step', () => {
    const link = sgd({ learningRate: ({ step }) => (step < 7 ? 0.1 : Number.NaN) });
    expect(() => link.update(new Map(), [], scopeAt(6))).not.toThrow();
    expect(() => link.update(new Map(), [], scopeAt(7))).toThrow(/learningRate at step 7 .* received NaN/);
  });
});
