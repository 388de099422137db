import { type LinearAlgebra, type Matrix, openedAlgebra } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { FactorPair } from './factors.js';
import type { Form } from './form.js';
import type { Layer } from './layers.js';

/** One of the two factors of a layer. */
export interface FactorKey {
  /** Index of the layer. */
  readonly layer: number;
  readonly side: 'a' | 'g';
}

/** What a form made of a factor. */
export interface Solved {
  readonly key: FactorKey;
  readonly values: Float32Array;
}

/** What this process knows of the inverses of the factors: of all layers, or of those it works for. */
export interface Decompositions {
  /** Begins to decompose these factors, each with its part of the damping. */
  start(keys: readonly FactorKey[], factors: readonly FactorPair[], damping: number): void;
  /** Waits for what was begun. */
  join(): Solved[];
  /** Takes results into use in place of those of the same factors. */
  install(solved: readonly Solved[]): void;
  /** P of ∇ [a, g] of a layer whose factors are installed. Inside `tf.tidy`. */
  precondition(layer: number, gradient: tf.Tensor2D, damping: number): tf.Tensor2D;
  /** Bytes of what is installed. */
  bytes(): number;
  dispose(): void;
}

const matrixOf = (tensor: tf.Tensor): Matrix => {
  const [rows = 0, columns = 0] = tensor.shape;
  return { rows, columns, data: tensor.dataSync() as Float32Array };
};

/** Mean of the diagonal. */
const meanDiagonal = ({ rows, data }: Matrix): number => {
  let sum = 0;
  for (let i = 0; i < rows; i++) sum += data[i * rows + i] as number;
  return sum / rows;
};

/** π·√γ for A and √γ/π for G: what each takes of the damping γ of their product. */
export function splitDamping(a: Matrix, g: Matrix, damping: number): { a: number; g: number } {
  const ratio = Math.sqrt(meanDiagonal(a) / meanDiagonal(g));
  const pi = Number.isFinite(ratio) && ratio > 0 ? ratio : 1;
  return { a: pi * Math.sqrt(damping), g: Math.sqrt(damping) / pi };
}

/** Holds the decompositions of these layers in one form. */
export function createDecompositions(form: Form, layers: readonly Layer[]): Decompositions {
  const installed = layers.map(() => ({ a: [] as tf.Tensor[], g: [] as tf.Tensor[] }));
  let begun: { readonly key: FactorKey; readonly join: () => Float32Array }[] = [];
  let algebra: LinearAlgebra | undefined;
  const sizeOf = ({ layer, side }: FactorKey): number => (layers[layer] as Layer)[side];
  return {
    start(keys, factors, damping) {
      algebra ??= openedAlgebra('kfac');
      const library = algebra;
      begun = keys.map((key) => {
        const pair = factors[key.layer] as FactorPair;
        const [a, g] = [matrixOf(pair.a), matrixOf(pair.g)];
        return { key, join: form.start(library, key.side === 'a' ? a : g, splitDamping(a, g, damping)[key.side]) };
      });
    },
    join() {
      const solved = begun.map(({ key, join }) => ({ key, values: join() }));
      begun = [];
      return solved;
    },
    install(solved) {
      for (const { key, values } of solved) {
        const slot = installed[key.layer] as Record<FactorKey['side'], tf.Tensor[]>;
        tf.dispose(slot[key.side]);
        slot[key.side] = form.open(values, sizeOf(key)).map((tensor) => tf.keep(tensor));
      }
    },
    precondition(layer, gradient, damping) {
      const { a, g } = installed[layer] as { a: tf.Tensor[]; g: tf.Tensor[] };
      return form.precondition(gradient, a, g, damping);
    },
    bytes: () => 4 * installed.flatMap(({ a, g }) => [...a, ...g]).reduce((sum, { size }) => sum + size, 0),
    dispose() {
      for (const { a, g } of installed) tf.dispose([...a, ...g]);
    },
  };
}
