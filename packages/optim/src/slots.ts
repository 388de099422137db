import { FrugalError, type Param } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** Optimizer state: Variables of zeros, one per kind and weight, named `owner/kind/weight`. */
export interface Slots {
  /** Makes the Variables of these weights; frees those it had. */
  init(params: readonly Param[]): void;
  /** The Variable of a kind for a weight. Throws `CONFIG` if `init` did not see that weight. */
  get(kind: string, param: Param): tf.Variable;
  /** All of them, by name. */
  state(): Map<string, tf.Variable>;
  /** Frees them. */
  dispose(): void;
}

/** Makes empty {@link Slots}; every Variable has the shape of its weight and is not trainable. */
export function createSlots(owner: string, kinds: readonly string[]): Slots {
  const variables = new Map<string, tf.Variable>();
  const dispose = (): void => {
    for (const variable of variables.values()) variable.dispose();
    variables.clear();
  };
  return {
    init(params) {
      dispose();
      for (const kind of kinds) {
        for (const { name, value } of params) {
          variables.set(`${owner}/${kind}/${name}`, zeros(value.shape));
        }
      }
    },
    get(kind, param) {
      const variable = variables.get(`${owner}/${kind}/${param.name}`);
      if (variable) return variable;
      throw new FrugalError(
        'CONFIG',
        `${owner}: expected init to have seen the weight ${param.name}. Call init first.`,
      );
    },
    state: () => new Map(variables),
    dispose,
  };
}

/** A Variable of zeros that gradients do not reach. */
export function zeros(shape: readonly number[]): tf.Variable {
  return tf.tidy(() => tf.variable(tf.zeros([...shape]), false));
}
