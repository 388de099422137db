import { FrugalError, type Hyper, type Param } from '@frugal/core';
import { describeEngines, expectNoLeak, relativeError } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { demon } from './schedules/demon.js';
import { linear } from './schedules/linear.js';
import { type SgdOptions, sgd } from './sgd.js';
import { paramOf, scopeAt, stepBy, trace } from './testing/bench.js';
import { golden } from './testing/golden.js';
import { openLink } from './testing/open.js';

/** float32 arithmetic: 2^-24 per operation, about ten operations per step. */
const FLOAT32 = 1e-6;

const one = { start: [0], gradient: () => [1], steps: 3 };

/** The definition in float64: weights after each step. */
function reference(
  { learningRate = 0, momentum = 0, nesterov = false, weightDecay = 0, decoupled = false }: Record<string, unknown>,
  {
    start,
    gradient,
    steps,
  }: { start: readonly number[]; gradient: (step: number, w: Float32Array) => ArrayLike<number>; steps: number },
): number[][] {
  const [eta, mu, lambda] = [learningRate, momentum, weightDecay].map((value) =>
    typeof value === 'function' ? (value as (step: number) => number) : () => value as number,
  ) as [(step: number) => number, (step: number) => number, (step: number) => number];
  const w = [...start];
  const v = start.map(() => 0);
  return Array.from({ length: steps }, (_, step) => {
    const g = gradient(step, Float32Array.from(w));
    for (const [i, old] of w.entries()) {
      const h = g[i]! + (decoupled ? 0 : lambda(step) * old);
      v[i] = mu(step) * v[i]! + h;
      const d = nesterov ? h + mu(step) * v[i]! : v[i]!;
      w[i] = old - eta(step) * d - (decoupled ? eta(step) * lambda(step) * old : 0);
    }
    return [...w];
  });
}

await describeEngines('sgd', () => {
  test('by hand', () => {
    const run = (options: SgdOptions, shape = [1], start = [0]): number[] =>
      trace(sgd(options), { ...one, shape, start }).map(([w]) => w as number);
    // v = 1, 1.9, 2.71; w = −0.1 · (1, 2.9, 5.61)
    expect(relativeError(run({ learningRate: 0.1, momentum: 0.9 }), [-0.1, -0.29, -0.561])).toBeLessThan(FLOAT32);
    // g + 0.9 v = 1.9, 2.71, 3.439; w = −0.1 · (1.9, 4.61, 8.049)
    const nesterov = run({ learningRate: 0.1, momentum: 0.9, nesterov: true });
    expect(relativeError(nesterov, [-0.19, -0.461, -0.8049])).toBeLessThan(FLOAT32);
    // Rank 2 decays: w ← 0.95 w − 0.1, from 2: 1.8, 1.61, 1.4295; without momentum both meanings are one.
    for (const decoupled of [false, true]) {
      const decayed = run({ learningRate: 0.1, weightDecay: 0.5, decoupled }, [1, 1], [2]);
      expect(relativeError(decayed, [1.8, 1.61, 1.4295])).toBeLessThan(FLOAT32);
    }
    // Rank 1 does not, unless told to.
    expect(relativeError(run({ learningRate: 0.1, weightDecay: 0.5 }, [1], [2]), [1.9, 1.8, 1.7])).toBeLessThan(
      FLOAT32,
    );
    const told = run({ learningRate: 0.1, weightDecay: 0.5, decay: () => true }, [1], [2]);
    expect(relativeError(told, [1.8, 1.61, 1.4295])).toBeLessThan(FLOAT32);
    // h = 1 + 0.5·2 = 2, v = 2, w = 1.8; h = 1.9, v = 2.9, w = 1.51; h = 1.755, v = 3.205, w = 1.1895
    const coupled = run({ learningRate: 0.1, momentum: 0.5, weightDecay: 0.5 }, [1, 1], [2]);
    expect(relativeError(coupled, [1.8, 1.51, 1.1895])).toBeLessThan(FLOAT32);
    // v = 1, 1.5, 1.75; w ← 0.95 w − 0.1 v: 1.8, 1.56, 1.307
    const decoupled = run({ learningRate: 0.1, momentum: 0.5, weightDecay: 0.5, decoupled: true }, [1, 1], [2]);
    expect(relativeError(decoupled, [1.8, 1.56, 1.307])).toBeLessThan(FLOAT32);
  });

  test('weight decay is that of PyTorch and of the decentralized links; decoupled it is 1 − μ of it', () => {
    const shrunk = (options: Partial<SgdOptions>): number =>
      trace(sgd({ learningRate: 0.1, momentum: 0.9, weightDecay: 5e-4, ...options }), {
        start: [1],
        shape: [1, 1],
        gradient: () => [0],
        steps: 1000,
      }).at(-1)![0]!;
    // torch.optim.SGD([w], lr=0.1, momentum=0.9, weight_decay=5e-4), 1000 steps of zero gradient.
    expect(shrunk({})).toBeCloseTo(0.608, 3);
    expect(shrunk({ decoupled: true })).toBeCloseTo((1 - 0.1 * 5e-4) ** 1000, 4);
    // The factor between the two: λ/(1 − μ) decoupled pulls as λ coupled does, but for the start of the velocity.
    expect(Math.abs(shrunk({ decoupled: true, weightDecay: 5e-4 / (1 - 0.9) }) / shrunk({}) - 1)).toBeLessThan(0.006);
    expect(Math.abs(shrunk({ decoupled: true }) / shrunk({}) - 1)).toBeGreaterThan(0.5);
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
      const rows = trace(sgd(options), { start, gradient: (step) => gradients[step] ?? [], steps: 10 });
      expect(relativeError(rows.flat(), expected), name).toBeLessThan(FLOAT32);
    }
  });

  test.each([
    [true, false],
    [false, false],
    [true, true],
    [false, true],
  ])('equals its definition in float64 (Nesterov %s, decoupled %s)', (nesterov, decoupled) => {
    const gradient = (step: number, w: Float32Array): Float32Array => w.map((x, i) => x + Math.sin(step + i));
    const options = { start: [1, -2, 3, 0.5, -0.25, 4], shape: [2, 3], gradient, steps: 20 };
    const at = (step: number) => scopeAt(step, 20).clock;
    const schedules = { learningRate: linear({ initial: 0.1 }), momentum: demon(), weightDecay: 0.05 } as const;
    const rows = trace(sgd({ ...schedules, nesterov, decoupled }), options);
    const expected = reference(
      {
        learningRate: (step: number) => schedules.learningRate(at(step)),
        momentum: (step: number) => schedules.momentum(at(step)),
        weightDecay: 0.05,
        nesterov,
        decoupled,
      },
      options,
    );
    // 20 steps of float32 rounding.
    expect(relativeError(rows.flat(), expected.flat())).toBeLessThan(1e-5);
  });

  test('no tensors are left over 10 steps, and none after dispose', async () => {
    const params = [paramOf([1, 2, 3, 4], [2, 2], 'kernel'), paramOf([1, 2], [2], 'bias')];
    const before = tf.memory().numTensors;
    const link = openLink(sgd({ learningRate: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.1 }), params);
    const gradients = new Map(params.map(({ name, value }) => [name, tf.onesLike(value)] as const));
    await expectNoLeak(() => {
      for (let step = 0; step < 10; step++) stepBy(link, gradients, scopeAt(step));
    });
    link.dispose?.();
    tf.dispose([...gradients.values()]);
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose(params.map(({ value }) => value));
  });
});

describe('state and hyper-parameters', () => {
  beforeAll(() => tf.setBackend('cpu'));
  const kernel = (): Param => paramOf([1, 2], [1, 2], 'dense/kernel');
  const stateOf = (options: SgdOptions, ...params: Param[]) => {
    const link = openLink(sgd(options), params);
    return { link, state: link.state!() as ReadonlyMap<string, tf.Variable> };
  };

  test('a velocity per weight, by name; none for momentum 0', () => {
    const param = kernel();
    const { link, state } = stateOf({ learningRate: 0.1, momentum: 0.9 }, param);
    expect([...state.keys()]).toEqual(['sgd/velocity/dense/kernel']);
    expect(state.get('sgd/velocity/dense/kernel')?.trainable).toBe(false);
    link.dispose?.();
    expect(link.state!().size).toBe(0);
    expect(stateOf({ learningRate: 0.1 }, param).state.size).toBe(0);
    const scheduled = stateOf({ learningRate: 0.1, momentum: () => 0 }, param);
    expect(scheduled.state.size).toBe(1);
    scheduled.link.dispose?.();
  });

  test('a state that is restored continues the run bit by bit', () => {
    const gradient = (param: Param, step: number): tf.Tensor => tf.mul(param.value, 1 + step);
    const run = (param: Param, link: ReturnType<typeof stateOf>['link'], from: number, to: number): void => {
      for (let s = from; s < to; s++)
        tf.tidy(() => stepBy(link, new Map([[param.name, gradient(param, s)]]), scopeAt(s, 8)));
    };
    const [param, copy] = [kernel(), kernel()];
    const options = { learningRate: 0.01, momentum: demon() };
    const first = stateOf(options, param);
    run(param, first.link, 0, 4);
    const second = stateOf(options, copy);
    copy.value.assign(param.value.clone());
    for (const [name, variable] of second.state) variable.assign(first.state.get(name)!.clone());
    run(param, first.link, 4, 8);
    run(copy, second.link, 4, 8);
    expect([...copy.value.dataSync()]).toEqual([...param.value.dataSync()]);
  });

  test('weights without a gradient stay as they are', () => {
    const [moved, frozen] = [kernel(), paramOf([5], [1], 'frozen')];
    const { link } = stateOf({ learningRate: 1, momentum: 0.5, weightDecay: 0.5, decay: () => true }, moved, frozen);
    tf.tidy(() => stepBy(link, new Map([['dense/kernel', tf.ones([1, 2])]]), scopeAt(0)));
    expect(frozen.value.dataSync()[0]).toBe(5);
    // 1 − (1 + 0.5·1), 2 − (1 + 0.5·2)
    expect([...moved.value.dataSync()]).toEqual([-0.5, 0]);
    link.dispose?.();
  });

  test('says its values at a step, and the rate of every weight', () => {
    const link = sgd({ learningRate: '0.1 * (1 - t)', momentum: demon(), weightDecay: 0.5 });
    const values = openLink(link, []).hyperparameters?.(scopeAt(50, 100));
    expect(values?.['learningRate']).toBeCloseTo(0.05, 15);
    expect(values?.['momentum']).toBeCloseTo(0.81818, 5);
    expect(values?.['weightDecay']).toBe(0.5);
    expect(link.rateOf(kernel())?.(scopeAt(25, 100).clock)).toBeCloseTo(0.075, 15);
    const plain = openLink(sgd({ learningRate: 0.1 }), []);
    expect(plain.hyperparameters?.(scopeAt(0))).toEqual({ learningRate: 0.1, momentum: 0 });
  });
});

describe('formulas', () => {
  const rate = (learningRate: Hyper, step: number, total?: number): number | undefined =>
    openLink(sgd({ learningRate }), []).hyperparameters?.(scopeAt(step, total))['learningRate'];

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

  test('decoupled that is no flag', () => {
    expect(() => sgd({ learningRate: 0.1, decoupled: 1 as unknown as boolean })).toThrow(/decoupled to be true or/);
  });

  test('nesterov without momentum', () => {
    expect(() => sgd({ learningRate: 0.1, nesterov: true })).toThrow(/expected a momentum with nesterov/);
    expect(() => sgd({ learningRate: 0.1, nesterov: 'yes' as unknown as boolean })).toThrow(/nesterov to be true or/);
  });

  test('a schedule that returns NaN, with the step', () => {
    const link = openLink(sgd({ learningRate: ({ step }) => (step < 7 ? 0.1 : Number.NaN) }), []);
    expect(() => link.apply(new Map(), scopeAt(6))).not.toThrow();
    expect(() => link.apply(new Map(), scopeAt(7))).toThrow(/learningRate at step 7 .* received NaN/);
  });
});
