import type * as tf from '@tensorflow/tfjs';
import {
  type ActivationLayer,
  type BatchNormLayer,
  type CallableLayer,
  handedOut,
  inputShapesOf,
  inputsOf,
  onlyConsumer,
  overrideTraining,
} from './keras.js';
import { normalise } from './training-layers.js';

/** Batch normalisation, an addition if there is one, and relu: three passes over the activations that can be one. */
export interface Fusion {
  readonly norm: BatchNormLayer;
  readonly add?: CallableLayer;
  readonly relu: CallableLayer;
}

const isRelu = (layer: CallableLayer): boolean =>
  layer.getClassName() === 'Activation' && (layer as ActivationLayer).activation.getClassName() === 'relu';

const isLastAxis = (norm: BatchNormLayer): boolean => {
  const [shape] = inputShapesOf(norm);
  return norm.axis === -1 || norm.axis === (shape?.length ?? 0) - 1;
};

/** Does an addition broadcast one side? Then the fused kernel, which reads both alike, cannot do it. */
const broadcasts = (add: CallableLayer): boolean => {
  const [a, b] = inputShapesOf(add);
  return a?.join() !== b?.join();
};

/** What follows a batch normalisation, where nothing else reads what lies between. */
function fusionAt(norm: BatchNormLayer, outputs: ReadonlySet<CallableLayer>): Fusion | undefined {
  const next = outputs.has(norm) ? undefined : onlyConsumer(norm);
  if (next === undefined) return undefined;
  if (isRelu(next) && inputsOf(next).length === 1) return { norm, relu: next };
  if (next.getClassName() !== 'Add' || inputsOf(next).length !== 2) return undefined;
  if (outputs.has(next) || broadcasts(next)) return undefined;
  const relu = onlyConsumer(next);
  return relu && isRelu(relu) && inputsOf(relu).length === 1 ? { norm, add: next, relu } : undefined;
}

/** Every place of a model where batch normalisation, addition and relu can be fused; an addition is fused once. */
export function findFusions(model: tf.LayersModel, layers: readonly CallableLayer[]): Fusion[] {
  const outputs = handedOut(model);
  const taken = new Set<CallableLayer>();
  const fusions: Fusion[] = [];
  for (const layer of layers) {
    if (layer.getClassName() !== 'BatchNormalization' || !isLastAxis(layer as BatchNormLayer)) continue;
    const fusion = fusionAt(layer as BatchNormLayer, outputs);
    if (!fusion || !layers.includes(fusion.relu) || taken.has(fusion.relu)) continue;
    taken.add(fusion.relu);
    fusions.push(fusion);
  }
  return fusions;
}

const pass = (x: tf.Tensor): tf.Tensor => x.clone();

/** Lets the layers before the last of a fusion pass their input on, and the last one do all the work. */
export function installFusion({ norm, add, relu }: Fusion): () => void {
  if (!add) {
    const undo = [overrideTraining(norm, pass), overrideTraining(relu, (x) => normalise(norm, x, 'relu'))];
    return () => undo.forEach((restore) => restore());
  }
  const at = inputsOf(add).indexOf(norm);
  const undo = [
    overrideTraining(norm, pass),
    overrideTraining(add, (_x, inputs) =>
      normalise(norm, inputs[at] as tf.Tensor, 'relu', inputs[1 - at] as tf.Tensor),
    ),
    overrideTraining(relu, pass),
  ];
  return () => undo.forEach((restore) => restore());
}
