import { attach, crossEntropy, type Loss, meanSquaredError, train } from '@frugal/core';
import { describeEngines, relativeError, toyImages, toyModel, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { sgd } from '../sgd.js';
import { softmax } from '../testing/kfac-reference.js';
import { layersIn, normals, numbersOf, runSteps, setLayers, tanhNet } from '../testing/kfac-runs.js';
import { eye, fill, kronecker, map, plus, product, type Rows, rowsOf, transpose } from '../testing/matrices.js';
import { kfac, type KfacOptions } from './index.js';

const COPIES = 400;
const STEPS = 4;
/** Of 8·400·4 draws; G of batches of one has 400·4. */
const SAMPLING = 0.1;

interface Pair {
  readonly a: Rows;
  readonly g: Rows;
}

/** Factors that kfac finds for these inputs, each many times in the batch; the weights stay. */
async function found(model: tf.LayersModel, x: Rows, loss: Loss, options: KfacOptions = {}): Promise<Pair[]> {
  const rows = Array.from({ length: COPIES }, () => x).flat();
  const outputs = layersIn(model).at(-1)![0]!.length;
  const batch = { x: rows, y: fill(rows.length, outputs, (_, j) => (j === 0 ? 1 : 0)) };
  const method = kfac({
    factorEvery: 1,
    inverseEvery: 1,
    klClip: false,
    decay: 0.999,
    fisher: 'sampled',
    damping: 1,
    ...options,
  });
  const pairs: Pair[] = [];
  const batches = Array.from({ length: STEPS }, () => batch);
  await runSteps(model, method, batches, { loss, rate: () => 0, seed: 3 }, (step, state, run) => {
    if (step < STEPS - 1) return;
    for (const { weight, a, g } of run.of(method).layers) {
      const of = (side: string, n: number): Rows => rowsOf(numbersOf(state, `kfac/${side}/${weight}`), n);
      pairs.push({ a: of('A', a), g: of('G', g) });
    }
  });
  return pairs;
}

/** The block of a layer with inputs a and E[g·gᵀ | x] known: 1/B·Σ (a·aᵀ) ⊗ E[g·gᵀ]. */
const exactBlock = (inputs: Rows, curvature: (row: number) => Rows): Rows =>
  inputs
    .map((a, i) => kronecker(product(transpose([a]), [a]), curvature(i)))
    .reduce((sum, block) => plus(sum, block))
    .map((row) => row.map((value) => value / inputs.length));

const errorOf = ({ a, g }: Pair, exact: Rows): number => relativeError(kronecker(a, g).flat(), exact.flat());

const withOnes = (x: Rows): Rows => x.map((row) => [...row, 1]);
/** diag(p) − p·pᵀ. */
const covariance = (p: number[]): Rows => fill(p.length, p.length, (i, j) => (i === j ? p[i]! : 0) - p[i]! * p[j]!);
/** Curvature of the mean over M outputs of squares. */
const ofSquares = (outputs: number): Rows => map(eye(outputs), (v) => (2 * v) / outputs);

await describeEngines('the sampled Fisher matrix', () => {
  const x = normals(4, 8, 3);

  test('linear layer and Gaussian likelihood: the block is exact, and the Hessian', async () => {
    const model = tanhNet([3, 2]);
    const exact = exactBlock(withOnes(x), () => ofSquares(2));
    const [pair] = await found(model, x, meanSquaredError);
    expect(errorOf(pair!, exact)).toBeLessThan(SAMPLING);
    // Control: the empirical one knows the targets, and is something else.
    const [empirical] = await found(model, x, meanSquaredError, { fisher: 'empirical' });
    expect(errorOf(empirical!, exact)).toBeGreaterThan(0.3);
  });

  test('any layer of a deep linear network', async () => {
    const linear = (units: number, seed: number, inputShape?: number[]) =>
      tf.layers.dense({
        units,
        kernelInitializer: tf.initializers.randomNormal({ stddev: 1, seed }),
        ...(inputShape && { inputShape }),
      });
    const model = tf.sequential({ layers: [linear(4, 1, [3]), linear(2, 2)] });
    const [first, second] = layersIn(model) as [Rows, Rows];
    const down = second.slice(0, 4);
    const hidden = product(withOnes(x), first);
    const [below, above] = await found(model, x, meanSquaredError);
    const through = product(product(down, ofSquares(2)), transpose(down));
    expect(
      errorOf(
        below!,
        exactBlock(withOnes(x), () => through),
      ),
    ).toBeLessThan(SAMPLING);
    expect(
      errorOf(
        above!,
        exactBlock(withOnes(hidden), () => ofSquares(2)),
      ),
    ).toBeLessThan(SAMPLING);
  });

  test('softmax regression: exact at W = 0, and not at another W', async () => {
    const model = tanhNet([3, 4]);
    const at = async (w: Rows): Promise<number> => {
      setLayers(model, [w]);
      const p = softmax(product(withOnes(x), w));
      const [pair] = await found(model, x, crossEntropy);
      return errorOf(
        pair!,
        exactBlock(withOnes(x), (i) => covariance(p[i]!)),
      );
    };
    expect(await at(fill(4, 4, () => 0))).toBeLessThan(SAMPLING);
    expect(await at(map(normals(5, 4, 4), (v) => 2 * v))).toBeGreaterThan(0.2);
  });

  test('a batch of one: exact at any W', async () => {
    const model = tanhNet([3, 4]);
    const w = map(normals(5, 4, 4), (v) => 2 * v);
    setLayers(model, [w]);
    for (const example of x.slice(0, 2)) {
      const [pair] = await found(model, [example], crossEntropy);
      const [p] = softmax(product(withOnes([example]), w));
      expect(
        errorOf(
          pair!,
          exactBlock(withOnes([example]), () => covariance(p!)),
        ),
      ).toBeLessThan(2 * SAMPLING);
    }
  });

  test('leaves averages and masks of the step as they are', async () => {
    const run = async (fisher: 'empirical' | 'sampled', seed = 1): Promise<[number[], number[]]> => {
      const model = toyModel(2, { batchNorm: true, dropout: 0.5 });
      const losses: number[] = [];
      await train(model, toyImages(48), {
        methods: [kfac({ factorEvery: 1, inverseEvery: 1, klClip: false, fisher })],
        optimizer: sgd({ learningRate: 0 }),
        epochs: 1,
        batchSize: 12,
        seed,
        progress: (event) => {
          if (event.kind === 'step') losses.push(event.loss);
        },
      });
      return [losses, weightsOf(model)];
    };
    const sampled = await run('sampled');
    expect(sampled).toEqual(await run('empirical'));
    // Control: other masks would be seen.
    expect(sampled[0]).not.toEqual((await run('sampled', 2))[0]);
  });

  test('other draws in each step, the same for the same seed', async () => {
    const weights = async (seed: number, fisher: 'empirical' | 'sampled' = 'sampled'): Promise<number[]> => {
      const model = toyModel(2);
      await train(model, toyImages(48), {
        methods: [kfac({ factorEvery: 1, inverseEvery: 1, fisher })],
        optimizer: sgd({ learningRate: 0.1 }),
        epochs: 1,
        batchSize: 48,
        seed,
        progress: false,
      });
      return weightsOf(model);
    };
    expect(await weights(1)).toEqual(await weights(1));
    expect(await weights(1)).not.toEqual(await weights(2));
    expect(await weights(1)).not.toEqual(await weights(1, 'empirical'));
  });
});

test('fit has no place for a second pass', () => {
  const model = toyModel();
  const attached = attach(model, kfac({ klClip: false, fisher: 'sampled' }));
  expect(() => attached.optimizer(sgd({ learningRate: 0.1 }))).toThrow(
    'kfac makes further passes over each batch, which model.fit cannot host. Use train(model, data, { methods: […] }).',
  );
  attached.detach();
});

test('a loss whose distribution is not known is refused', async () => {
  const loss: Loss = { ...meanSquaredError, name: 'absolute' };
  const method = kfac({ klClip: false, fisher: 'sampled' });
  const run = runSteps(tanhNet([3, 2]), method, [{ x: normals(1, 2, 3), y: normals(2, 2, 2) }], { loss });
  await expect(run).rejects.toThrow(
    /crossEntropy or meanSquaredError but the loss is absolute. Use fisher: 'empirical'/,
  );
});
