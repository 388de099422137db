import { FrugalError, type Param } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { dense, isSoftmax, type LayerLike, type Stage, stageOf } from './stages.js';

/** How the members of an ensemble are run. */
export interface ForwardPlan {
  /** `batched`: one matrix product per layer for all members. `loop`: member by member, by the model itself. */
  readonly mode: 'batched' | 'loop';
  /** Why the members must be looped over. */
  readonly reason?: string;
  /** Numbers in the largest activation of one example, over the members that are held at once. */
  width(members: number): number;
  /**
   * Outputs [J, B, …] of all members.
   *
   * @param xs - inputs [B, …]
   * @param stacked - the trainable weights of all members, [J, …weight], in the order of the parameters
   * @param logits - leave out a final softmax
   */
  run(xs: tf.Tensor, stacked: readonly tf.Tensor[], logits?: boolean): tf.Tensor;
}

/* The origin of a symbolic tensor, which the types of TensorFlow.js 4.22 leave out (engine/topology.ts). */
interface SymbolicLike {
  readonly shape: readonly (number | null)[];
  readonly sourceLayer: LayerLike;
  readonly inputs: readonly SymbolicLike[];
}

/** The layers from input to output, or the reason why they are not one chain. */
function layersOf(model: tf.LayersModel): LayerLike[] | string {
  const found: LayerLike[] = [];
  let tensor = model.outputs[0] as unknown as SymbolicLike;
  while (tensor.inputs.length > 0) {
    if (tensor.inputs.length > 1) return `${tensor.sourceLayer.name} takes ${tensor.inputs.length} inputs`;
    found.unshift(tensor.sourceLayer);
    tensor = tensor.inputs[0] as SymbolicLike;
  }
  return found;
}

function batched(params: readonly Param[], stages: readonly Stage[], widest: number): ForwardPlan {
  const place = new Map(params.map(({ value }, index) => [value as tf.Tensor, index]));
  return {
    mode: 'batched',
    width: (members) => members * widest,
    run: (xs, stacked, logits = false) =>
      tf.tidy(() => {
        // A frozen weight is the same for all members.
        const weight = (variable: tf.Tensor): tf.Tensor => stacked[place.get(variable) ?? -1] ?? variable.expandDims(0);
        const y = stages.reduce((x, stage) => stage(x, weight, logits), xs.expandDims(0));
        const count = stacked[0]?.shape[0] ?? 1;
        return y.shape[0] === count ? y.clone() : tf.tile(y, [count, ...y.shape.slice(1).map(() => 1)]);
      }),
  };
}

/** Numbers in the largest activation of one example, in a chain of layers. */
function widestOf(model: tf.LayersModel): number {
  let widest = 1;
  for (let t = model.outputs[0] as unknown as SymbolicLike; t.inputs.length > 0; t = t.inputs[0] as SymbolicLike) {
    widest = Math.max(
      widest,
      t.shape.slice(1).reduce<number>((size, n) => size * (n ?? 1), 1),
    );
  }
  return widest;
}

/** The outputs of a model without its final softmax. */
function withoutSoftmax(model: tf.LayersModel): (xs: tf.Tensor) => tf.Tensor {
  const { sourceLayer: last, inputs } = model.outputs[0] as unknown as SymbolicLike;
  const whole = (xs: tf.Tensor): tf.Tensor => model.apply(xs, { training: false }) as tf.Tensor;
  if (last.layers !== undefined || last.layer !== undefined) {
    throw new FrugalError(
      'CONFIG',
      `ensemble: expected the last layer to stand in the model itself to observe logits, but it is inside ${last.name}. Observe 'outputs'.`,
    );
  }
  if (last.getClassName() !== 'Softmax' && !isSoftmax(last)) return whole;
  // A second model of the same layers, without the last: it shares their weights.
  const trunk = tf.model({ inputs: model.inputs, outputs: inputs[0] as unknown as tf.SymbolicTensor });
  const before = (xs: tf.Tensor): tf.Tensor => trunk.apply(xs, { training: false }) as tf.Tensor;
  if (last.weights.length === 0) return before;
  const linear = dense(last, true);
  return (xs) => linear(before(xs).expandDims(0), (variable) => variable.expandDims(0), true).squeeze([0]);
}

function loop(model: tf.LayersModel, params: readonly Param[], reason: string): ForwardPlan {
  let logitsOf: ((xs: tf.Tensor) => tf.Tensor) | undefined;
  const outputsOf = (xs: tf.Tensor): tf.Tensor => model.apply(xs, { training: false }) as tf.Tensor;
  const assign = (stacked: readonly tf.Tensor[], j: number): void =>
    params.forEach(({ value }, index) => value.assign((stacked[index] as tf.Tensor).gather(j)));
  return {
    mode: 'loop',
    reason,
    width: () => 1,
    run(xs, stacked, logits = false) {
      const member = logits ? (logitsOf ??= withoutSoftmax(model)) : outputsOf;
      return tf.tidy(() => {
        const before = params.map(({ value }) => value.clone());
        const count = stacked[0]?.shape[0] ?? 1;
        const one = (j: number): tf.Tensor => {
          assign(stacked, j);
          return member(xs);
        };
        try {
          return tf.stack(Array.from({ length: count }, (_, j) => tf.tidy(() => one(j))));
        } finally {
          params.forEach(({ value }, index) => value.assign(before[index] as tf.Tensor));
        }
      });
    },
  };
}

/**
 * Chooses, once per model, how its ensembles are run. A chain of Dense, Conv2D, MaxPooling2D and AveragePooling2D
 * (channels last), Flatten, Activation and Dropout (no dropout here) runs batched: weights [J, …], each dense layer one
 * product [J, B, K] × [J, K, M], the first convolution one with J·M filters, later ones member by member. Any other model is run member by member: weights assigned, the model applied as in inference, weights restored.
 *
 * Cost of a run: J forward passes, memory for J copies of the activations of a batch; the loop holds one at a time.
 *
 * @param model - one input, one output
 * @param params - its trainable weights
 * @param force - `loop` to go member by member whatever the layers are
 * @throws `CONFIG` when the parameters are not this model's trainable weights, or it has several inputs or outputs
 */
export function planForward(model: tf.LayersModel, params: readonly Param[], force?: 'loop'): ForwardPlan {
  if (model.inputs.length !== 1 || model.outputs.length !== 1) {
    throw new FrugalError(
      'CONFIG',
      `ensemble: expected a model of one input and one output but ${model.name} has ${model.inputs.length} and ${model.outputs.length}.`,
    );
  }
  const own = new Set(model.trainableWeights.map((weight) => weight.read()));
  if (own.size !== new Set(params.map(({ value }) => value)).size || params.some(({ value }) => !own.has(value))) {
    throw new FrugalError(
      'CONFIG',
      `ensemble: expected the weights of ${model.name} but received those of another model. Pass the trainable weights of this one.`,
    );
  }
  if (force) return loop(model, params, 'it was asked for');
  const layers = layersOf(model);
  if (typeof layers === 'string') return loop(model, params, layers);
  const stages = layers.map((layer, index) => stageOf(layer, index === layers.length - 1));
  const reason = stages.find((stage) => typeof stage === 'string');
  if (typeof reason === 'string') return loop(model, params, reason);
  return batched(
    params,
    stages.filter((stage) => typeof stage !== 'string'),
    widestOf(model),
  );
}

/** Most examples of a forward pass, and most numbers in one of its activations (64 MB). */
const CHUNK = { examples: 256, numbers: 2 ** 24 };

/**
 * Predictions D [J, N] of all members in float64, N = batch × outputs, in chunks of at most 256 examples, and
 * of activations of at most 64 MB.
 *
 * @param plan - from {@link planForward}
 * @param xs - inputs [B, …]
 * @param stacked - weights [J, …]
 * @param logits - leave out a final softmax
 */
export function predictions(
  plan: ForwardPlan,
  xs: tf.Tensor,
  stacked: readonly tf.Tensor[],
  logits = false,
): { values: Float64Array; shape: number[] } {
  const rows = xs.shape[0] as number;
  const parts: { data: ArrayLike<number>; width: number }[] = [];
  let shape: number[] = [];
  let count = stacked[0]?.shape[0] ?? 1;
  const fitting = Math.max(1, Math.floor(CHUNK.numbers / plan.width(count)));
  const chunk = Math.min(CHUNK.examples, fitting);
  for (let from = 0; from < rows; from += chunk) {
    tf.tidy(() => {
      const part = rows <= chunk ? xs : xs.slice([from], [Math.min(chunk, rows - from)]);
      const y = plan.run(part, stacked, logits);
      [count = 1] = y.shape;
      shape = [rows, ...y.shape.slice(2)];
      parts.push({ data: y.dataSync(), width: y.size / count });
    });
  }
  const n = shape.reduce((a, b) => a * b, 1);
  const values = new Float64Array(count * n);
  let offset = 0;
  for (const { data, width } of parts) {
    for (let j = 0; j < count; j++) {
      for (let k = 0; k < width; k++) values[j * n + offset + k] = data[j * width + k] as number;
    }
    offset += width;
  }
  return { values, shape };
}
