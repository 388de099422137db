import { attach, FrugalError, linearAlgebra, type Link, type Matrix, train } from '@frugal/core';
import { describeEngines, expectNoLeak, relativeError, toyImages, toyModel, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { sgd } from './sgd.js';
import { shampoo, type ShampooOptions } from './shampoo.js';
import { paramOf, scopeAt } from './testing/bench.js';
import {
  normal,
  openPrepared,
  orthogonalised,
  powerOf,
  quadratic,
  restore,
  runChain,
  times,
  transposed,
  zip,
} from './testing/kronecker.js';
import { openLink } from './testing/open.js';

/** P of every step for these gradients of a weight `w`. */
async function preconditioned(
  options: ShampooOptions,
  shape: number[],
  gradients: readonly ArrayLike<number>[],
): Promise<number[][]> {
  const param = paramOf(new Array<number>(tf.util.sizeFromShape(shape)).fill(0), shape);
  const link = openLink(shampoo(options), [param]);
  try {
    await link.prepare?.();
    return gradients.map((g, step) =>
      tf.tidy(() => {
        const updates = new Map([['w', tf.tensor(Float32Array.from(g), shape)]]);
        return [...(link.transform(updates, scopeAt(step, 10)).get('w') as tf.Tensor).dataSync()];
      }),
    );
  } finally {
    link.dispose?.();
    param.value.dispose();
  }
}

const close = (actual: ArrayLike<number> | undefined, expected: ArrayLike<number>, tolerance = 1e-5): void =>
  expect(relativeError(actual ?? [], expected)).toBeLessThan(tolerance);

const gradients = (count: number, rows: number, columns: number): Matrix[] =>
  Array.from({ length: count }, (_, i) => normal(rows, columns, 10 + i));

/** The paper's updates in float64, with averages, corrections and roots of every third step. */
function reference(g: readonly Matrix[], beta: (step: number) => number, epsilon: number): ArrayLike<number>[] {
  let [l, r, kept] = [zip(times(g[0]!, transposed(g[0]!)), g[0]!, () => 0), undefined as Matrix | undefined, 1];
  let roots: [Matrix, Matrix] | undefined;
  const average = (s: Matrix | undefined, fresh: Matrix, b: number): Matrix =>
    zip(s ?? fresh, fresh, (x, y) => (s ? b * x : 0) + (1 - b) * y);
  return g.map((gradient, step) => {
    const b = beta(step);
    kept *= b;
    l = average(step ? l : undefined, times(gradient, transposed(gradient)), b);
    r = average(r, times(transposed(gradient), gradient), b);
    const corrected = (s: Matrix): Matrix => zip(s, s, (x) => x / (1 - kept));
    if (step % 3 === 0) roots = [powerOf(corrected(l), -1 / 4, epsilon), powerOf(corrected(r), -1 / 4, epsilon)];
    return times(roots![0], gradient, roots![1]).data;
  });
}

const plain: ShampooOptions = { graft: 'none', inverseEvery: 1 };

await describeEngines('shampoo', () => {
  beforeAll(async () => {
    await linearAlgebra();
  });

  test('by hand: 1×1, sum and average', async () => {
    // L = R = 9, ε·λ = 15·9: P = 3 / √(16·9) = 1/4. Then L = 25: 4 / √(16·25) = 1/5.
    close((await preconditioned({ ...plain, beta: 1, epsilon: 15 }, [1, 1], [[3], [4]])).flat(), [0.25, 0.2]);
    // β = ½: L̂ = 9, then (9/4 + 16/2) / (3/4) = 41/3.
    const [first, second] = await preconditioned({ ...plain, beta: 0.5, epsilon: 15 }, [1, 1], [[3], [4]]);
    close(first, [0.25]);
    close(second, [4 / Math.sqrt((16 * 41) / 3)]);
    // Roots of every other step: in the second step still those of L = 9.
    close((await preconditioned({ ...plain, beta: 1, epsilon: 15, inverseEvery: 2 }, [1, 1], [[3], [4]]))[1], [1 / 3]);
  });

  test('of diagonal gradients it is Adagrad', async () => {
    const rows = await preconditioned(
      { ...plain, beta: 1, epsilon: 1e-9 },
      [2, 2],
      [
        [3, 0, 0, -1],
        [4, 0, 0, 2],
      ],
    );
    close(rows[0], [1, 0, 0, -1]);
    close(rows[1], [4 / 5, 0, 0, 2 / Math.sqrt(5)]);
  });

  test('after one step P is U·Vᵀ, by both sides or by either one', async () => {
    const g = normal(5, 3, 1);
    const options: ShampooOptions = { ...plain, beta: 1, epsilon: 1e-9 };
    const expected = orthogonalised(g).data;
    close((await preconditioned(options, [5, 3], [g.data]))[0], expected, 1e-4);
    // A side of 5 is too large: R^(−1/2) alone. Transposed, L^(−1/2) alone.
    close((await preconditioned({ ...options, largest: 4 }, [5, 3], [g.data]))[0], expected, 1e-4);
    const turned = (await preconditioned({ ...options, largest: 4 }, [3, 5], [transposed(g).data]))[0];
    close(turned, transposed(orthogonalised(g)).data, 1e-4);
    // Control: a large ε is another thing; and no side at all leaves G.
    expect(
      relativeError((await preconditioned({ ...options, epsilon: 1 }, [5, 3], [g.data]))[0]!, expected),
    ).toBeGreaterThan(0.1);
    expect((await preconditioned({ ...options, largest: 2 }, [5, 3], [g.data]))[0]).toEqual([
      ...Float32Array.from(g.data),
    ]);
  });

  test('convolutions are [h·w·C, O]; vectors pass unless told otherwise', async () => {
    const g = normal(8, 3, 2);
    const [dense] = await preconditioned(plain, [8, 3], [g.data]);
    expect((await preconditioned(plain, [2, 2, 2, 3], [g.data]))[0]).toEqual(dense);
    expect((await preconditioned(plain, [2], [[3, 4]]))[0]).toEqual([3, 4]);
    // R^(−1/2) of g·gᵀ, which is g / |g|; roundings across g grow by ε^(−1/2) = 1000.
    close((await preconditioned({ ...plain, exclude: () => false }, [2], [[3, 4]]))[0], [0.6, 0.8], 3e-4);
    expect((await preconditioned({ ...plain, exclude: ({ name }) => name === 'w' }, [8, 3], [g.data]))[0]).toEqual([
      ...Float32Array.from(g.data),
    ]);
  });

  test('eight steps against float64, with roots of every third, β constant and scheduled', async () => {
    const g = gradients(8, 4, 3);
    const options: ShampooOptions = { graft: 'none', inverseEvery: 3, epsilon: 1e-3 };
    const arrays = g.map(({ data }) => data);
    const actual = await preconditioned({ ...options, beta: 0.9 }, [4, 3], arrays);
    const expected = reference(g, () => 0.9, 1e-3);
    for (const [step, row] of actual.entries()) close(row, expected[step]!, 2e-5);
    const scheduled = await preconditioned({ ...options, beta: '0.9 - 0.05 * step' }, [4, 3], arrays);
    const other = reference(g, (step) => 0.9 - 0.05 * step, 1e-3);
    for (const [step, row] of scheduled.entries()) close(row, other[step]!, 2e-5);
    // Controls: the other β, and roots of every step.
    expect(relativeError(scheduled[7]!, expected[7]!)).toBeGreaterThan(1e-2);
    const fresh = await preconditioned({ ...options, beta: 0.9, inverseEvery: 1 }, [4, 3], arrays);
    expect(relativeError(fresh[7]!, expected[7]!)).toBeGreaterThan(1e-2);
  });

  test('grafted, P is as long as G and points the same way', async () => {
    const g = normal(4, 3, 3);
    const [grafted] = await preconditioned({ inverseEvery: 1 }, [4, 3], [g.data]);
    const [bare] = await preconditioned(plain, [4, 3], [g.data]);
    const length = (x: ArrayLike<number>): number => Math.hypot(...Array.from(x));
    expect(length(grafted!)).toBeCloseTo(length(g.data), 4);
    close(
      grafted,
      bare!.map((x) => (x * length(g.data)) / length(bare!)),
    );
  });

  test('a gradient of zeros gives zeros, and no roots that the next one would suffer from', async () => {
    const zero = [0, 0, 0, 0];
    const rowsOf = (graft: 'none' | 'gradient'): Promise<number[][]> =>
      preconditioned(
        { ...plain, graft, beta: 1, epsilon: 1e-9, inverseEvery: 2 },
        [2, 2],
        [zero, [3, 0, 0, 1], [3, 0, 0, 1]],
      );
    const [first, second, third] = await rowsOf('none');
    expect(first).toEqual(zero);
    close(second, [3, 0, 0, 1]);
    close(third, [Math.SQRT1_2, 0, 0, Math.SQRT1_2]);
    expect((await rowsOf('gradient'))[0]).toEqual(zero);
  });

  const optimizer = () => [shampoo({ inverseEvery: 3 }), sgd({ learningRate: 0.1, momentum: 0.9 })];

  test('learns in train, dense and convolution', async () => {
    const model = toyModel();
    const report = await train(model, toyImages(), {
      optimizer: optimizer(),
      epochs: 3,
      batchSize: 16,
      progress: false,
    });
    expect(report.epochs.at(-1)!.loss).toBeLessThan(0.5 * report.epochs[0]!.loss);
    model.dispose();
  });

  test('in fit, once it is prepared', async () => {
    const model = toyModel();
    const attached = attach(model);
    const before = weightsOf(model);
    const prepared = attached.optimizer(optimizer());
    model.compile({ optimizer: prepared, loss: 'categoricalCrossentropy' });
    const xs = tf.randomNormal([8, 8, 8, 1], 0, 1, 'float32', 3);
    const ys = tf.oneHot(tf.tensor1d([0, 1, 2, 0, 1, 2, 0, 1], 'int32'), 3);
    const early = model.fit(xs, ys, { epochs: 1, batchSize: 8, verbose: 0 });
    await expect(early).rejects.toSatisfy((error) => FrugalError.is(error, 'CONFIG'));
    await expect(early).rejects.toThrow(/^shampoo must load something .* await optimizer\.prepare\(\) before fit/);
    expect(weightsOf(model)).toEqual(before);
    await prepared.prepare();
    const history = await model.fit(xs, ys, { epochs: 5, batchSize: 8, verbose: 0 });
    expect(history.history['loss']?.[4]).toBeLessThan(history.history['loss']?.[0] as number);
    expect(relativeError(weightsOf(model), before)).toBeGreaterThan(0.001);
    attached.detach();
    model.dispose();
    tf.dispose([xs, ys]);
  });

  test('no tensors are left', async () => {
    await expectNoLeak(async () => {
      await preconditioned(
        { inverseEvery: 2 },
        [2, 2, 1, 3],
        gradients(6, 4, 3).map(({ data }) => data),
      );
    });
  });
});

test('on an ill-conditioned quadratic it comes far below tuned SGD in as many steps', async () => {
  await tf.setBackend('cpu');
  await linearAlgebra();
  const best = async (rates: readonly number[], make: (learningRate: number) => Link[]): Promise<number> =>
    Math.min(...(await Promise.all(rates.map((rate) => quadratic(make(rate), 60)))));
  // SGD with this momentum diverges from 3.8 on.
  const plainSgd = await best([1, 2, 3, 3.6], (learningRate) => [sgd({ learningRate, momentum: 0.9 })]);
  const withShampoo = await best([1, 2, 3], (learningRate) => [
    shampoo({ inverseEvery: 5 }),
    sgd({ learningRate, momentum: 0.9 }),
  ]);
  expect(plainSgd).toBeGreaterThan(0.05);
  expect(withShampoo).toBeLessThan(0.4 * plainSgd);
});

describe('state', () => {
  beforeAll(async () => {
    await tf.setBackend('cpu');
    await linearAlgebra();
  });

  test('sums and roots by name', () => {
    const params = [paramOf(new Array<number>(6).fill(0), [2, 3], 'k'), paramOf([0, 0], [2], 'b')];
    const link = openLink(shampoo({ largest: 2 }), params);
    expect([...link.state!()].map(([name, kept]) => [name, kept instanceof tf.Variable ? kept.shape : kept])).toEqual([
      ['shampoo/L/k', [2, 2]],
      ['shampoo/rootL/k', [2, 2]],
      // A number of the host.
      ['shampoo/total', Float64Array.of(0)],
    ]);
    link.dispose?.();
    expect([...link.state!().keys()]).toEqual(['shampoo/total']);
  });

  test('1 − Π β is counted on the host', async () => {
    const param = paramOf([0, 0], [2], 'b');
    const link = openLink(shampoo({ beta: '0.5 + 0.25 * step', largest: 1 }), [param]);
    await link.prepare?.();
    const total = link.state!().get('shampoo/total');
    for (const [step, expected] of [0.5, 0.625].entries()) {
      link.transform(new Map(), scopeAt(step));
      expect(total).toEqual(Float64Array.of(expected));
    }
    link.dispose?.();
    param.value.dispose();
  });

  test('without prepare there is nothing that decomposes', () => {
    const param = paramOf([1, 2, 3, 4], [2, 2]);
    const link = openLink(shampoo(), [param]);
    const gradient = tf.ones([2, 2]);
    const step = (): unknown => link.transform(new Map([['w', gradient]]), scopeAt(0));
    expect(step).toThrow(/^shampoo: expected to be prepared before its first step. Await optimizer.prepare\(\)/);
    link.dispose?.();
    tf.dispose([gradient, param.value]);
  });

  test.each([[true], [false]])(
    'restored between two computations of roots, a run continues bit by bit: %s',
    async (whole) => {
      const values = [...normal(4, 3, 9).data];
      const gradient = (step: number) => ({ w: normal(4, 3, 20 + step).data });
      const links = [shampoo({ inverseEvery: 4 }), sgd({ learningRate: 0.1, momentum: 0.9 })];
      const [param, copy] = [paramOf(values, [4, 3]), paramOf(values, [4, 3])];
      // One description, two runs.
      const [first, second] = [await openPrepared(links, [param]), await openPrepared(links, [copy])];
      runChain(first, [param], gradient, [0, 6]);
      copy.value.assign(param.value.clone());
      restore(first.state(), second.state(), whole ? undefined : 'root');
      runChain(first, [param], gradient, [6, 11]);
      runChain(second, [copy], gradient, [6, 11]);
      const same = [...copy.value.dataSync()].every((x, i) => x === param.value.dataSync()[i]);
      // Control: without the roots in use it would be another run.
      expect(same).toBe(whole);
      [first, second].forEach((chain) => chain.dispose());
    },
  );

  test('names the weight whose gradient is not finite', async () => {
    const run = preconditioned({}, [1, 2], [[Number.NaN, 1]]);
    await expect(run).rejects.toSatisfy((error) => FrugalError.is(error, 'NON_FINITE'));
    await expect(run).rejects.toThrow(/shampoo: expected finite gradients of w/);
  });
});

test('refuses bad options, and says its value', () => {
  expect(() => shampoo({ beta: 1.1 })).toThrow(/beta in \[0, 1\] but received 1.1/);
  expect(() => shampoo({ epsilon: 0 })).toThrow(/epsilon in \(0, ∞\)/);
  expect(() => shampoo({ inverseEvery: 0 })).toThrow(/inverseEvery in \[1, ∞\)/);
  expect(() => shampoo({ largest: 1.5 })).toThrow(/largest to be an integer/);
  expect(() => shampoo({ graft: 'adam' as 'none' })).toThrow(/graft to be one of 'gradient', 'none'/);
  expect(() => shampoo({ exclude: 'bias' } as unknown as ShampooOptions)).toThrow(/exclude to be a function/);
  expect(() => shampoo({ momentum: 0.9 } as ShampooOptions)).toThrow(/shampoo: .* received "momentum"/);
  expect(openLink(shampoo({ beta: '0.9 + 0.01 * step' }), []).hyperparameters?.(scopeAt(3))['beta']).toBeCloseTo(
    0.93,
    9,
  );
});
