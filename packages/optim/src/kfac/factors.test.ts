import { attach, clockAt, type GradientLink, type Observer, type Scope } from '@frugal/core';
import { describeEngines, relativeError } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { normals, numbersOf, tanhNet } from '../testing/kfac-runs.js';
import { fill, map, type Rows, transpose } from '../testing/matrices.js';
import { createFactors, type Factors } from './factors.js';
import { kfac } from './index.js';
import { type Layer, layersOf } from './layers.js';
import { openObserver } from './observe.js';
import { type KfacOptions, settle } from './options.js';
import { openSeen } from './seen.js';

interface Seen {
  readonly a: number[];
  readonly g: number[];
}

/** The factors of one batch, of the loss Σ y ⊙ c, divided by B where it is a mean: then g is c, whatever the weights. */
function factorsOf(
  model: tf.LayersModel,
  xs: tf.Tensor | tf.Tensor[],
  c: tf.Tensor,
  options: KfacOptions = {},
): Seen[] {
  const settings = settle({ klClip: false, ...options });
  const sums = openSeen();
  const { observer, sums: sumsOf } = openObserver(settings, () => true, sums, undefined);
  const attached = attach(model, { name: 'look', source: '', open: () => ({ observer }) });
  const factors = createFactors(settings, layersOf(attached.params, settings).layers, sumsOf);
  const scope = attached.begin(clockAt(0));
  const count = options.lossReduction === 'sum' ? 1 : c.shape[0]!;
  const seen = tf.tidy(() => {
    tf.variableGrads(() => tf.div(tf.sum(tf.mul(model.apply(xs, { training: true }) as tf.Tensor, c)), count));
    return factors.batch(scope)!.map(({ a, g }) => ({ a: [...a.dataSync()], g: [...g.dataSync()] }));
  });
  attached.detach();
  factors.dispose();
  sums.forget();
  return seen;
}

/** Σ r·rᵀ over rows, divided. */
function gramOf(rows: Rows, divisor: number): number[] {
  const n = rows[0]!.length;
  return fill(n, n, (i, j) => rows.reduce((sum, row) => sum + row[i]! * row[j]!, 0) / divisor).flat();
}

function expectClose({ a, g }: Seen, expectedA: number[], expectedG: number[]): void {
  expect(relativeError(a, expectedA)).toBeLessThan(1e-5);
  expect(relativeError(g, expectedG)).toBeLessThan(1e-5);
}

interface Image {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
}

/** The patch at each output position, [kh, kw, C] flattened, by loops over the padded image. */
function patchesOf(x: Rows, image: Image, size: [number, number], strides: [number, number], pad: string): Rows {
  const { height, width, channels } = image;
  const along = (n: number, k: number, s: number): { out: number; before: number } => {
    if (pad === 'valid') return { out: Math.floor((n - k) / s) + 1, before: 0 };
    const out = Math.ceil(n / s);
    return { out, before: Math.floor(Math.max(0, (out - 1) * s + k - n) / 2) };
  };
  const [rows, columns] = [along(height, size[0], strides[0]), along(width, size[1], strides[1])];
  const patches: Rows = [];
  for (const example of x) {
    for (let p = 0; p < rows.out; p++) {
      for (let q = 0; q < columns.out; q++) {
        const patch: number[] = [];
        for (let u = 0; u < size[0]; u++) {
          for (let v = 0; v < size[1]; v++) {
            const [i, j] = [p * strides[0] + u - rows.before, q * strides[1] + v - columns.before];
            const inside = i >= 0 && i < height && j >= 0 && j < width;
            for (let k = 0; k < channels; k++) patch.push(inside ? example[(i * width + j) * channels + k]! : 0);
          }
        }
        patches.push(patch);
      }
    }
  }
  return patches;
}

const withOnes = (rows: Rows): Rows => rows.map((row) => [...row, 1]);

await describeEngines('factors of a batch', () => {
  test('dense, by hand', () => {
    const model = tanhNet([2, 2]);
    const [seen] = factorsOf(model, tf.tensor2d([1, 2, 3, -1], [2, 2]), tf.tensor2d([1, 0, 2, -4], [2, 2]));
    // a = (1, 2, 1) and (3, −1, 1); g = (1, 0) and (2, −4); halves of the sums.
    expectClose(seen!, [5, -0.5, 2, -0.5, 2.5, 0.5, 2, 0.5, 1], [2.5, -4, -4, 8]);
  });

  test('a batch of one: A ⊗ G is the gradient times itself', () => {
    const model = tanhNet([3, 2]);
    const [x, c] = [normals(1, 1, 3), normals(2, 1, 2)];
    const [seen] = factorsOf(model, tf.tensor2d(x), tf.tensor2d(c));
    const gradient = withOnes(x)[0]!.flatMap((a) => c[0]!.map((g) => a * g));
    const outer = gradient.flatMap((v) => gradient.map((w) => v * w));
    const block = fill(8, 8, (i, j) => {
      const [a, g] = [seen!.a[Math.floor(i / 2) * 4 + Math.floor(j / 2)]!, seen!.g[(i % 2) * 2 + (j % 2)]!];
      return a * g;
    });
    expect(relativeError(block.flat(), outer)).toBeLessThan(1e-5);
  });

  const image = { height: 5, width: 6, channels: 2 };
  test.each([
    ['3×3 same', [3, 3], [1, 1], 'same', true],
    ['3×3 valid, no bias', [3, 3], [1, 1], 'valid', false],
    ['3×2, strides 2×1, same', [3, 2], [2, 1], 'same', true],
    ['2×3, strides 2×3, valid', [2, 3], [2, 3], 'valid', true],
    ['1×1, no bias', [1, 1], [1, 1], 'same', false],
    ['3×3, strides 2, same', [3, 3], [2, 2], 'same', false],
  ] as const)('conv2d against loops over patches: %s', (_name, size, strides, pad, bias) => {
    const layer = tf.layers.conv2d({
      filters: 3,
      kernelSize: [...size],
      strides: [...strides],
      padding: pad,
      useBias: bias,
      inputShape: [5, 6, 2],
    });
    const model = tf.sequential({ layers: [layer] });
    const x = normals(5, 4, 60);
    const shape = (layer.outputShape as number[]).slice(1);
    const positions = shape[0]! * shape[1]!;
    const c = normals(6, 4 * positions, 3);
    const input = tf.tensor(x.flat(), [4, 5, 6, 2]);
    const [seen] = factorsOf(model, input, tf.tensor(c.flat(), [4, ...shape]));
    const patches = patchesOf(x, image, [...size], [...strides], pad);
    expect(patches.length).toBe(4 * positions);
    // KFC: sums over positions in A, means in G; B = 4.
    expectClose(seen!, gramOf(bias ? withOnes(patches) : patches, 4), gramOf(c, 4 * positions));
    if (positions > 1) expect(relativeError(seen!.g, gramOf(c, 4))).toBeGreaterThan(0.1);
  });

  test('dense of rank 3: rows are positions, not examples', () => {
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 2, inputShape: [7, 3] })] });
    const [x, c] = [normals(1, 5 * 7, 3), normals(2, 5 * 7, 2)];
    const [seen] = factorsOf(model, tf.tensor(x.flat(), [5, 7, 3]), tf.tensor(c.flat(), [5, 7, 2]));
    expectClose(seen!, gramOf(withOnes(x), 5), gramOf(c, 5 * 7));
  });

  test('time-distributed dense is the same', () => {
    const inner = tf.layers.dense({ units: 2 });
    const model = tf.sequential({ layers: [tf.layers.timeDistributed({ layer: inner, inputShape: [7, 3] })] });
    const [x, c] = [normals(1, 5 * 7, 3), normals(2, 5 * 7, 2)];
    const [seen] = factorsOf(model, tf.tensor(x.flat(), [5, 7, 3]), tf.tensor(c.flat(), [5, 7, 2]));
    expectClose(seen!, gramOf(withOnes(x), 5), gramOf(c, 5 * 7));
  });

  test('a layer that is used twice has the sums of both calls', () => {
    const shared = tf.layers.dense({ units: 2 });
    const inputs = [tf.input({ shape: [3] }), tf.input({ shape: [3] })];
    const outputs = inputs.map((each) => shared.apply(each) as tf.SymbolicTensor);
    const model = tf.model({ inputs, outputs: tf.layers.concatenate().apply(outputs) as tf.SymbolicTensor });
    const [x, z, c] = [normals(1, 4, 3), normals(2, 4, 3), normals(3, 4, 4)];
    const [seen] = factorsOf(model, [tf.tensor2d(x), tf.tensor2d(z)], tf.tensor2d(c));
    const g = [...c.map((row) => row.slice(0, 2)), ...c.map((row) => row.slice(2))];
    expectClose(seen!, gramOf(withOnes([...x, ...z]), 4), gramOf(g, 8));
  });

  test('the sum of losses has the factors of their mean; told wrongly, it has not', () => {
    const model = tanhNet([3, 2]);
    const [x, c] = [tf.tensor2d(normals(1, 6, 3)), tf.tensor2d(normals(2, 6, 2))];
    const [mean] = factorsOf(model, x, c);
    const [sum] = factorsOf(model, x, c, { lossReduction: 'sum' });
    expectClose(sum!, mean!.a, mean!.g);
    // Control: without B² the factor would be this.
    expect(relativeError(map([mean!.g], (v) => v / 36)[0]!, mean!.g)).toBeGreaterThan(0.9);
  });
});

const layer = (): Layer => {
  const kernel = { name: 'w', value: { shape: [2, 1], size: 2 } };
  return { name: 'w', kernel, a: 2, g: 1 } as unknown as Layer;
};

/** Averages after updates with 2×2 and 1×1 factors of these values. */
function averaged(options: KfacOptions, values: readonly number[]): { a: number[]; g: number[] }[] {
  const factors: Factors = createFactors(settle({ klClip: false, ...options }), [layer()], () => undefined);
  const seen = values.map((value, step) => {
    tf.tidy(() => {
      const batch = [{ a: tf.tensor2d([value, 1, 1, 0], [2, 2]), g: tf.tensor2d([[2 * value]]) }];
      factors.average(batch, clockAt(step), step);
    });
    const [pair] = factors.averages();
    return { a: [...pair!.a.dataSync()], g: [...pair!.g.dataSync()] };
  });
  factors.dispose();
  return seen;
}

await describeEngines('running averages', () => {
  const rounded = (rows: { a: number[]; g: number[] }[]) =>
    rows.map(({ a, g }) => [...a, ...g].map((v) => Math.round(v * 1e5) / 1e5));

  test('from the first batch: α = min(1 − 1/k, decay), so a mean at first', () => {
    // 4; (4 + 1)/2; (4 + 1 + 7)/3 = 4; then 0.7·4 + 0.3·9 = 5.5
    expect(rounded(averaged({ decay: 0.7 }, [4, 1, 7, 9]))).toEqual([
      [4, 1, 1, 0, 8],
      [2.5, 1, 1, 0, 5],
      [4, 1, 1, 0, 8],
      [5.5, 1, 1, 0, 11],
    ]);
  });

  test('from the identity: α is decay from the start', () => {
    // 0.75·1 + 0.25·5 = 2, 0.25, 0.75 of the 1; G 0.75 + 2.5
    expect(rounded(averaged({ start: 'identity', decay: 0.75 }, [5, 6]))).toEqual([
      [2, 0.25, 0.25, 0.75, 3.25],
      [3, 0.4375, 0.4375, 0.5625, 5.4375],
    ]);
  });

  test('decay by schedule', () => {
    // 2; min(1/2, 0.9) = 1/2: 3; min(2/3, 0) = 0: 8
    const decay = (clock: { step: number }): number => (clock.step < 2 ? 0.9 : 0);
    expect(averaged({ decay }, [2, 4, 8]).map(({ a }) => a[0])).toEqual([2, 3, 8]);
  });

  test('what was remembered does not move with the averages', () => {
    const factors = createFactors(settle({ klClip: false }), [layer()], () => undefined);
    const average = (value: number, step: number): void =>
      tf.tidy(() => factors.average([{ a: tf.fill([2, 2], value), g: tf.fill([1, 1], value) }], clockAt(step), step));
    average(3, 0);
    factors.remember();
    average(5, 1);
    expect([...factors.decomposed()[0]!.a.dataSync()]).toEqual([3, 3, 3, 3]);
    expect([...factors.averages()[0]!.a.dataSync()]).toEqual([4, 4, 4, 4]);
    factors.dispose();
  });
});

test('sees nothing in steps that update no factors, nor in passes that others make', () => {
  const attached = attach(tanhNet([3, 2]), kfac({ factorEvery: 3 }));
  const pass = (): void =>
    tf.tidy(() => {
      const xs = tf.tensor2d(transpose(normals(1, 3, 4)));
      tf.variableGrads(() => tf.sum(attached.context.model.apply(xs, { training: true }) as tf.Tensor));
    });
  /** Tensors that a pass leaves, which are the sums. */
  const left = (step: number, run: () => void): number => {
    attached.begin(clockAt(step));
    const before = tf.memory().numTensors;
    run();
    return tf.memory().numTensors - before;
  };
  const other: Observer = { name: 'other', onBackward: () => undefined };
  const looking = (): void => attached.look({ rules: 'on', observers: [other] }, pass);
  expect(left(0, looking)).toBe(0);
  expect(left(0, pass)).toBe(2);
  // Those of step 0 stay until others come in their place.
  expect([left(1, pass), left(2, pass), left(3, looking), left(3, pass)]).toEqual([0, 0, 0, 0]);
  const before = tf.memory().numTensors;
  attached.detach();
  expect(tf.memory().numTensors - before).toBe(-2);
});

test('what a step has seen that is made again, after one that failed, is its own', async () => {
  const model = tanhNet([3, 2]);
  const method = kfac({ factorEvery: 1, inverseEvery: 1, klClip: false });
  const attached = attach(model, method);
  const link = (method.link as GradientLink).open(attached.context);
  await link.prepare?.();
  const pass = (scope: Scope, scale: number, follow: boolean): void =>
    tf.tidy(() => {
      const xs = tf.mul(tf.tensor2d(normals(1, 4, 3)), scale);
      const { grads } = tf.variableGrads(() => tf.sum(model.apply(xs, { training: true }) as tf.Tensor));
      const updates = attached.params.map(({ name, value }) => [name, grads[value.name] as tf.Tensor] as const);
      if (follow) link.transform(new Map(updates), scope);
    });
  const factors = (): number[][] =>
    ['A', 'G'].map((side) => numbersOf(attached.opened.state(), `kfac/${side}/dense0/kernel`));
  pass(attached.begin(clockAt(0)), 1, true);
  const first = factors();
  // The step fails, as by a loss that is NaN: no link is called.
  pass(attached.begin(clockAt(1)), Number.NaN, false);
  pass(attached.begin(clockAt(1)), 1, true);
  // The mean of two equal batches.
  for (const [i, values] of factors().entries()) expect(relativeError(values, first[i]!)).toBeLessThan(1e-6);
  attached.detach();
});
