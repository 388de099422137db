import { type Dataset, stream } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

const EXAMPLES = 2000;
const INPUTS = 40;
const CLASSES = 10;
const TEACHER = 30;

type Rows = Float64Array[];

/** Orthonormal rows, by Gram–Schmidt on Gaussian ones. */
function rotation(random: { normal(): number }): Rows {
  const rows: Rows = [];
  for (let i = 0; i < INPUTS; i++) {
    const row = Float64Array.from({ length: INPUTS }, () => random.normal());
    for (const done of rows) {
      const dot = row.reduce((sum, value, j) => sum + value * (done[j] as number), 0);
      for (let j = 0; j < INPUTS; j++) row[j] = (row[j] as number) - dot * (done[j] as number);
    }
    const norm = Math.hypot(...row);
    rows.push(row.map((value) => value / norm));
  }
  return rows;
}

const gaussian = (random: { normal(): number }, rows: number, columns: number): Rows =>
  Array.from({ length: rows }, () => Float64Array.from({ length: columns }, () => random.normal()));

/** Σ_k x_k·rows_k. */
function apply(x: ArrayLike<number>, rows: Rows): Float64Array {
  const sum = new Float64Array((rows[0] as Float64Array).length);
  for (const [k, row] of rows.entries()) {
    for (let j = 0; j < sum.length; j++) sum[j] = (sum[j] as number) + (x[k] as number) * (row[j] as number);
  }
  return sum;
}

/**
 * A classification that first-order methods find hard: 40 inputs whose scales go from 1 to 0.01, turned by a random rotation
 * and shifted by ½, and 10 classes told by a tanh network that sees all of them at equal scale.
 */
export function illConditioned(seed: number): Dataset {
  const random = stream(seed, 'ill-conditioned');
  const turn = rotation(random);
  const scales = Array.from({ length: INPUTS }, (_, i) => 10 ** ((-2 * i) / (INPUTS - 1)));
  const first = gaussian(random, INPUTS, TEACHER);
  const second = gaussian(random, TEACHER, CLASSES);
  const inputs = new Float32Array(EXAMPLES * INPUTS);
  const targets = new Uint8Array(EXAMPLES);
  for (let n = 0; n < EXAMPLES; n++) {
    const z = scales.map(() => random.normal());
    const x = apply(
      z.map((value, i) => value * (scales[i] as number)),
      turn,
    );
    inputs.set(
      x.map((value) => value + 0.5),
      n * INPUTS,
    );
    const hidden = apply(z, first).map((value) => Math.tanh(value / Math.sqrt(INPUTS)));
    const scores = apply(hidden, second);
    targets[n] = scores.indexOf(Math.max(...scores));
  }
  const classes = Array.from({ length: CLASSES }, (_, i) => String(i));
  return {
    name: 'ill-conditioned',
    origin: 'made by rule',
    length: EXAMPLES,
    shape: [INPUTS],
    inputs,
    targets,
    classes,
  };
}

/** The network that learns it: 40-64-32-10 with tanh, weights of variance 1/fan-in. */
export function tanhNetwork(seed: number): tf.LayersModel {
  const sizes = [64, 32, CLASSES];
  const layers = sizes.map((units, i) =>
    tf.layers.dense({
      units,
      name: `dense${i + 1}`,
      activation: i < sizes.length - 1 ? 'tanh' : 'softmax',
      kernelInitializer: tf.initializers.varianceScaling({
        scale: 1,
        mode: 'fanIn',
        distribution: 'normal',
        seed: 10 * seed + i,
      }),
      ...(i === 0 && { inputShape: [INPUTS] }),
    }),
  );
  return tf.sequential({ layers });
}
