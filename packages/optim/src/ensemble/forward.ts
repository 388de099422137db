import { FrugalError, type Param } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** How the members of an ensemble are run. */
export interface ForwardPlan {
  /** `batched`: one matrix product per layer for all members. `loop`: member by member, by the model itself. */
  readonly mode: 'batched' | 'loop';
  /** Why the members must be looped over. */
  readonly reason?: string;
  /**
   * Outputs [J, B, …] of all members.
   *
   * @param xs - inputs [B, …]
   * @param stacked - the trainable weights of all members, [J, …weight], in the order of the parameters
   * @param logits - leave out a final softmax
   */
  run(xs: tf.Tensor, stacked: readonly tf.Tensor[], logits?: boolean): tf.Tensor;
}

/*
 * Fields of TensorFlow.js 4.22 that its types leave out: dense.js and activation of layers/core.ts, and the origin of a
 * symbolic tensor (engine/topology.ts).
 */
interface LayerLike {
  readonly name: string;
  readonly activation?: { apply(x: tf.Tensor): tf.Tensor; getClassName(): string } | null;
  readonly dataFormat?: string;
  readonly weights: readonly { read(): tf.Tensor }[];
  getClassName(): string;
}
interface SymbolicLike {
  readonly sourceLayer: LayerLike;
  readonly inputs: readonly SymbolicLike[];
}

type Stage = (x: tf.Tensor, weight: (variable: tf.Tensor) => tf.Tensor, logits: boolean) => tf.Tensor;

const isSoftmax = (layer: LayerLike): boolean => layer.activation?.getClassName() === 'softmax';

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

/** y = activation(x·W + b) for all members: [j, B, …, K] × [J, K, M], where j is 1 or J. */
function dense(layer: LayerLike, last: boolean): Stage {
  const [kernel, bias] = layer.weights.map((weight) => weight.read());
  return (x, weight, logits) => {
    const w = weight(kernel as tf.Tensor);
    const [members = 1, ...rows] = x.shape.slice(0, -1);
    const wide = x.reshape([members, -1, x.shape.at(-1) as number]);
    let y = tf.matMul(wide, w);
    if (bias) {
      const b = weight(bias);
      y = y.add(b.reshape([b.shape[0] as number, 1, -1]));
    }
    y = y.reshape([y.shape[0] as number, ...rows, y.shape.at(-1) as number]);
    return layer.activation && !(logits && last && isSoftmax(layer)) ? layer.activation.apply(y) : y;
  };
}

/** What runs a layer for all members at once, or the reason why nothing does. */
function stageOf(layer: LayerLike, last: boolean): Stage | string {
  switch (layer.getClassName()) {
    case 'Dense':
      return dense(layer, last);
    case 'Flatten':
      if (layer.dataFormat === 'channelsFirst') return `${layer.name} flattens channels first`;
      return (x) => x.reshape([x.shape[0] as number, x.shape[1] as number, -1]);
    case 'Activation':
      return (x, _, logits) =>
        layer.activation && !(logits && last && isSoftmax(layer)) ? layer.activation.apply(x) : x;
    case 'Dropout':
      return (x) => x;
    default:
      return `${layer.name} is a ${layer.getClassName()}`;
  }
}

function batched(params: readonly Param[], stages: readonly Stage[]): ForwardPlan {
  const place = new Map(params.map(({ value }, index) => [value as tf.Tensor, index]));
  return {
    mode: 'batched',
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

function loop(model: tf.LayersModel, params: readonly Param[], reason: string): ForwardPlan {
  const last = (model.outputs[0] as unknown as SymbolicLike).sourceLayer;
  const softmax = last.getClassName() === 'Softmax' || isSoftmax(last);
  const member = (xs: tf.Tensor, stacked: readonly tf.Tensor[], j: number): tf.Tensor => {
    params.forEach(({ value }, index) => value.assign((stacked[index] as tf.Tensor).gather(j)));
    return model.apply(xs, { training: false }) as tf.Tensor;
  };
  return {
    mode: 'loop',
    reason,
    run(xs, stacked, logits = false) {
      if (logits && softmax) {
        throw new FrugalError(
          'CONFIG',
          `ensemble: expected a model that ends linearly to observe logits member by member (${reason}) but ${last.name} ends in softmax. Leave the softmax out, or observe 'outputs'.`,
        );
      }
      return tf.tidy(() => {
        const before = params.map(({ value }) => value.clone());
        const count = stacked[0]?.shape[0] ?? 1;
        try {
          return tf.stack(Array.from({ length: count }, (_, j) => tf.tidy(() => member(xs, stacked, j))));
        } finally {
          params.forEach(({ value }, index) => value.assign(before[index] as tf.Tensor));
        }
      });
    },
  };
}

/**
 * Chooses, once per model, how its ensembles are run. A chain of Dense (any activation), Flatten, Activation and
 * Dropout (no dropout here) runs batched: weights [J, …], each dense layer one product [J, B, K] × [J, K, M]. Any other
 * model is run member by member: weights assigned, the model applied as in inference, weights restored.
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
      `ensemble: expected the weights of ${model.name} but received those of another model. Give the method the model that is trained.`,
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
  );
}

/** Examples per forward pass: bounds the memory of activations. */
const CHUNK = 256;

/**
 * Predictions D [J, N] of all members in float64, N = batch × outputs, in chunks of 256 examples.
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
  let count = 1;
  for (let from = 0; from < rows; from += CHUNK) {
    tf.tidy(() => {
      const part = rows <= CHUNK ? xs : xs.slice([from], [Math.min(CHUNK, rows - from)]);
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
