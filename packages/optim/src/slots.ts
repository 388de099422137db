import { FrugalError, type Param } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** Optimizer state: Variables, one per kind and weight, named `owner/kind/weight`. */
export interface Slots {
  /** The Variable of a kind for a weight. Throws `CONFIG` for a weight that it was not made for. */
  get(kind: string, param: Param): tf.Variable;
  /** All of them, by name. */
  state(): Map<string, tf.Variable>;
  /** Frees them. */
  dispose(): void;
}

/** Makes {@link Slots} of zeros for these weights; every Variable has the shape of its weight and is not trainable. */
export function openSlots(owner: string, kinds: readonly string[], params: readonly Param[]): Slots {
  const variables = new Map<string, tf.Variable>();
  for (const kind of kinds) {
    for (const { name, value } of params) variables.set(`${owner}/${kind}/${name}`, zeros(value.shape));
  }
  return {
    get(kind, param) {
      const variable = variables.get(`${owner}/${kind}/${param.name}`);
      if (variable) return variable;
      throw new FrugalError(
        'CONFIG',
        `${owner}: expected a weight that the run was opened with but received ${param.name}. Open a run of its own.`,
      );
    },
    state: () => new Map(variables),
    dispose() {
      for (const variable of variables.values()) variable.dispose();
      variables.clear();
    },
  };
}

/** A Variable of zeros that gradients do not reach. */
export function zeros(shape: readonly number[]): tf.Variable {
  return tf.tidy(() => tf.variable(tf.zeros([...shape]), false));
}
