import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { numbers, runKernel, runOne } from './compare.js';

const ROWS = 200;
const COLUMNS = 96;
const CHOSEN = Int32Array.from({ length: 37 }, (_, i) => 5 * i + (i % 3));

const onNative = async (body: () => void): Promise<void> => {
  await tf.setBackend('native');
  body();
};
const matrix = (seed: number, rows = ROWS): tf.Tensor => tf.tensor2d(numbers(rows * COLUMNS, seed), [rows, COLUMNS]);
const variable = (seed: number): tf.Variable => tf.tidy(() => tf.variable(matrix(seed)));
const put = (x: tf.Tensor): tf.Tensor => runOne('FrugalPut', { x }, { axis: 0, indices: CHOSEN, size: ROWS });
const norms = (x: tf.Tensor): Float32Array =>
  tf.tidy(() => runOne('FrugalNorms', { x }, { axis: 0 }).dataSync().slice() as Float32Array);
const written = (): Float32Array => {
  const values = numbers(CHOSEN.length * COLUMNS, 3);
  const whole = new Float32Array(ROWS * COLUMNS);
  CHOSEN.forEach((row, j) => whole.set(values.subarray(j * COLUMNS, (j + 1) * COLUMNS), row * COLUMNS));
  return whole;
};

function pendingRows(): void {
  it('are written out for whoever reads them, also after their source is gone, and leave nothing behind', () =>
    onNative(() => {
      const before = tf.memory();
      const x = matrix(3, CHOSEN.length);
      const [y, other] = [put(x), put(x)];
      x.dispose();
      numbers(1, 1);
      const scrap = tf.tidy(() => tf.keep(tf.mul(matrix(9, CHOSEN.length), 2)));
      expect(tf.tidy(() => tf.add(y, 0).dataSync())).toEqual(written());
      expect(y.dataSync()).toEqual(written());
      tf.dispose([y, other, scrap]);
      expect(tf.memory().numTensors).toBe(before.numTensors);
      expect(tf.memory().numDataBuffers).toBe(before.numDataBuffers);
    }));

  it.each([
    [0, false, 0, 0],
    [0, false, 0.1, 0],
    [0, false, 0, 0.1],
    [0.9, false, 0, 0],
    [0.9, false, 0.01, 0],
    [0.9, true, 0.01, 0],
    [0.9, false, 0, 0.05],
    [0.9, true, 0.01, 0.05],
  ])(
    'update weights as the whole gradient does (momentum %f, Nesterov %s, decay %f, coupled %f)',
    (momentum, nesterov, weightDecay, coupledDecay) =>
      onNative(() => {
        const results = [true, false].map((byRows) => {
          const [w, v] = [variable(1), variable(2)];
          for (let step = 0; step < 3; step++) {
            tf.tidy(() => {
              const g = byRows ? put(matrix(3, CHOSEN.length)) : tf.tensor2d(written(), [ROWS, COLUMNS]);
              runKernel(
                'FrugalSgd',
                { w, g, ...(momentum > 0 && { v }) },
                { learningRate: 0.1, momentum, nesterov, weightDecay, coupledDecay },
              );
            });
          }
          const values = [w, v].map((t) => t.dataSync().slice());
          tf.dispose([w, v]);
          return values;
        });
        expect(results[0]).toEqual(results[1]);
      }),
  );
}

function unsortedRows(): void {
  it('are refused when their indices do not ascend', () =>
    onNative(() => {
      tf.tidy(() => {
        const put = (...indices: number[]) =>
          runOne('FrugalPut', { x: tf.ones([3, 64]) }, { axis: 0, indices: Int32Array.from(indices), size: 6 });
        expect(() => put(4, 1, 3)).toThrow('do not fit its contract');
        expect(() => put(1, 1, 3)).toThrow('do not fit its contract');
        expect(put(1, 3, 4).shape).toEqual([6, 64]);
      });
    }));
}

function wrongShapes(): void {
  it('are errors, never reads beyond an array', () =>
    onNative(() => {
      tf.tidy(() => {
        const filter = tf.ones<tf.Rank.R4>([3, 3, 8, 8]);
        expect(() =>
          tf.conv2dTranspose(tf.ones<tf.Rank.R4>([1, 2, 2, 8]), filter, [1, 400, 400, 8], 1, 'same'),
        ).toThrow('expected dy of shape');
        const conv = { strides: [1, 1], pad: 'same', dataFormat: 'NHWC' };
        expect(() =>
          runOne(
            'Conv2DBackpropFilter',
            { x: tf.ones([2, 5, 5, 3]), dy: tf.ones([1, 5, 5, 4]) },
            { ...conv, filterShape: [3, 3, 3, 4] },
          ),
        ).toThrow('expected dy of shape');
        expect(() =>
          runOne('BatchMatMul', { a: tf.ones([2, 8]), b: tf.ones([4, 3]) }, { transposeA: false, transposeB: false }),
        ).toThrow(/inner/i);
      });
    }));
}

function rowNorms(): void {
  const sgd = (w: tf.Variable, v: tf.Variable, byRows: boolean): void =>
    tf.tidy(() => {
      const g = byRows ? put(matrix(3, CHOSEN.length)) : matrix(4);
      const fresh = runKernel(
        'FrugalSgd',
        { w, g, v },
        { learningRate: 0.1, momentum: 0.9, nesterov: false, weightDecay: 0.01, coupledDecay: 0 },
      );
      if (fresh[0] !== undefined) w.assign(fresh[0]);
    });

  it('follow updates with the bits of norms that are computed anew', () =>
    onNative(() => {
      const [w, v] = [variable(1), variable(2)];
      const first = norms(w);
      for (const byRows of [false, true, true, false]) {
        sgd(w, v, byRows);
        const anew = tf.tidy(() => norms(w.clone().add(0)));
        expect(norms(w)).toEqual(anew);
        expect(anew).not.toEqual(first);
      }
      tf.dispose([w, v]);
    }));

  it('are not kept for other axes: those of a 1×1 filter are computed anew', () =>
    onNative(() => {
      const w = tf.tidy(() => tf.variable(tf.tensor(numbers(100 * 64, 1), [1, 1, 100, 64])));
      const channels = (): Float32Array =>
        tf.tidy(() => runOne('FrugalNorms', { x: w }, { axis: 2 }).dataSync().slice() as Float32Array);
      const first = channels();
      tf.tidy(
        () =>
          void runKernel(
            'FrugalSgd',
            { w, g: tf.onesLike(w) },
            { learningRate: 0.1, momentum: 0, nesterov: false, weightDecay: 0, coupledDecay: 0 },
          ),
      );
      const second = channels();
      expect(second.every((value, i) => value !== first[i])).toBe(true);
      expect(second).toEqual(tf.tidy(() => runOne('FrugalNorms', { x: tf.add(w, 0) }, { axis: 2 }).dataSync()));
      w.dispose();
    }));

  it('follow assignments, Adam, and a copy that an update made', () =>
    onNative(() => {
      const [w, v, m] = [variable(1), variable(2), variable(5)];
      const anew = (t: tf.Tensor): Float32Array => tf.tidy(() => norms(tf.add(t, 0)));
      norms(w);
      tf.tidy(() => w.assign(matrix(7)));
      expect(norms(w)).toEqual(anew(w));
      const hyper = {
        learningRate: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        gain: 0.1,
        epsilon: 1e-8,
        weightDecay: 0,
        correction1: 1,
        correction2: 1,
      };
      tf.tidy(() => {
        const squares = tf.square(v) as tf.Tensor;
        v.assign(squares);
      });
      tf.tidy(() => void runKernel('FrugalAdam', { w, g: matrix(4), m, v }, hyper));
      expect(norms(w)).toEqual(anew(w));
      const alias = w.clone();
      const old = norms(alias);
      sgd(w, v, true);
      expect(norms(w)).toEqual(anew(w));
      expect(norms(alias)).toEqual(old);
      expect(norms(alias)).toEqual(anew(alias));
      tf.dispose([w, v, m, alias]);
    }));
}

/** What is not computed or written, because nobody needs it. */
export function rows(): void {
  describe('rows in zeros', pendingRows);
  describe('rows in any order', unsortedRows);
  describe('shapes that do not fit', wrongShapes);
  describe('squared norms of rows', rowNorms);
}
