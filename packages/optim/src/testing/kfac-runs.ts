import {
  type GradientLink,
  meanSquaredError,
  type State,
  type Stepper,
  stepper,
  type StepperOptions,
  stream,
  type UpdateLink,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { KfacMethod, KfacReport } from '../kfac/index.js';
import type { Examples } from './kfac-reference.js';
import { fill, type Rows, rowsOf } from './matrices.js';

/** W ← W − η·gradient, nothing else. For tests only. */
export function plainSgd(learningRate: (step: number) => number): UpdateLink {
  return {
    kind: 'update',
    name: 'plainSgd',
    rateOf:
      () =>
      ({ step }) =>
        learningRate(step),
    open: ({ params }) => ({
      apply(gradients, { clock }) {
        for (const { name, value } of params) {
          const gradient = gradients.get(name);
          if (gradient) value.assign(tf.add(value, tf.mul(gradient, -learningRate(clock.step))));
        }
      },
    }),
  };
}

/** Stands between two links and hands each step's gradients, which are borrowed, to `look`. For tests only. */
export function spy(look: (gradients: ReadonlyMap<string, tf.Tensor>, step: number) => void): GradientLink {
  return {
    kind: 'gradient',
    name: 'spy',
    open: () => ({
      transform(gradients, { clock }) {
        look(gradients, clock.step);
        return new Map(gradients);
      },
    }),
  };
}

/** The state of a run, of methods and links. For tests only. */
export function stateOf({ attachment, chain }: Pick<Stepper, 'attachment' | 'chain'>): State {
  return new Map([...attachment.opened.state(), ...chain.state()]);
}

/** The numbers of a state. For tests only. */
export function numbersOf(state: State, name: string): number[] {
  const kept = state.get(name);
  if (kept === undefined) throw new Error(`no state ${name}, but ${[...state.keys()].join(', ')}`);
  return [...(kept instanceof Float64Array ? kept : kept.dataSync())];
}

/** Normal numbers of a seed. For tests only. */
export function normals(seed: number, rows: number, columns: number): Rows {
  const random = stream(seed, 'rows');
  return fill(rows, columns, () => Math.fround(random.normal()));
}

/** A network of tanh layers with a linear end. For tests only. */
export function tanhNet(sizes: readonly number[], seed = 1): tf.LayersModel {
  const [inputs, ...units] = sizes as [number, ...number[]];
  const init = (k: number) => tf.initializers.randomNormal({ stddev: 0.6, seed: 10 * seed + k });
  return tf.sequential({
    layers: units.map((count, i) =>
      tf.layers.dense({
        units: count,
        name: `dense${i}`,
        kernelInitializer: init(i),
        biasInitializer: init(i + 5),
        activation: i < units.length - 1 ? 'tanh' : 'linear',
        ...(i === 0 && { inputShape: [inputs] }),
      }),
    ),
  });
}

/** Weight and bias of each dense layer as one matrix. For tests only. */
export function layersIn(model: tf.LayersModel): Rows[] {
  const weights = model.getWeights();
  return Array.from({ length: weights.length / 2 }, (_, i) => [
    ...rowsOf(weights[2 * i]!.dataSync(), weights[2 * i]!.shape.at(-1)!),
    [...weights[2 * i + 1]!.dataSync()],
  ]);
}

/** Sets weights and biases of dense layers. For tests only. */
export function setLayers(model: tf.LayersModel, layers: readonly Rows[]): void {
  tf.tidy(() => model.setWeights(layers.flatMap((w) => [tf.tensor2d(w.slice(0, -1)), tf.tensor1d(w.at(-1)!)])));
}

/** What {@link runSteps} looks at after each step. For tests only. */
export type Look = (step: number, state: State, run: Stepper) => void;

/** Trains a model on batches by `stepper`, mean squared error unless told; frees what it made. For tests only. */
export async function runSteps(
  model: tf.LayersModel,
  method: KfacMethod,
  batches: readonly Examples[],
  options: Partial<StepperOptions> & { readonly rate?: (step: number) => number } = {},
  look: Look = () => undefined,
): Promise<KfacReport> {
  const { rate = () => 0.1, ...rest } = options;
  const run = stepper(model, { methods: [method], optimizer: plainSgd(rate), loss: meanSquaredError, ...rest });
  try {
    for (const [step, { x, y }] of batches.entries()) {
      const [xs, ys] = [tf.tensor2d(x), tf.tensor2d(y)];
      await run.step({ xs, ys });
      tf.dispose([xs, ys]);
      look(step, stateOf(run), run);
    }
    return run.of(method);
  } finally {
    run.dispose();
  }
}
