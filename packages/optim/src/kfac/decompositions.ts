import type { LinearAlgebra, Matrix } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { Corrections } from './corrections.js';
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
  start(library: LinearAlgebra, keys: readonly FactorKey[], factors: readonly FactorPair[], damping: number): void;
  /** Waits for what was begun. */
  join(): Solved[];
  /** Takes results into use in place of those of the same factors: of a side, those of all layers that are held, at once. */
  install(solved: readonly Solved[]): void;
  /**
   * P of ∇ [a, g] of layers whose factors are installed, by index; layers of equal sizes go through the products together.
   * Inside `tf.tidy`.
   */
  precondition(
    gradients: ReadonlyMap<number, tf.Tensor2D>,
    damping: number,
    corrections?: Corrections,
  ): Map<number, tf.Tensor2D>;
  /** What the form has of the factors of a layer; undefined before that is installed. Inside `tf.tidy`. */
  of(layer: number): { readonly a: readonly tf.Tensor[]; readonly g: readonly tf.Tensor[] } | undefined;
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

/** Layers of equal sizes, and what is installed of their factors, stacked in their order. */
interface Group {
  readonly layers: readonly number[];
  /** Those that this process holds. */
  members: readonly number[];
  readonly a: tf.Tensor[];
  readonly g: tf.Tensor[];
}

function groupsOf(layers: readonly Layer[]): Group[] {
  const bySize = new Map<string, number[]>();
  for (const [i, { a, g }] of layers.entries()) {
    const key = `${a}, ${g}`;
    bySize.set(key, [...(bySize.get(key) ?? []), i]);
  }
  return [...bySize.values()].map((of) => ({ layers: of, members: [], a: [], g: [] }));
}

/** Replaces one side of a group by what was solved of it, if anything. */
function replaceSide(group: Group, side: FactorKey['side'], solved: readonly Solved[], form: Form, n: number): void {
  const own = solved.filter(({ key }) => key.side === side && group.layers.includes(key.layer));
  if (own.length === 0) return;
  own.sort((x, y) => x.key.layer - y.key.layer);
  group.members = own.map(({ key }) => key.layer);
  tf.dispose(group[side]);
  const opened = form.open(
    own.map(({ values }) => values),
    n,
  );
  group[side].splice(0, Infinity, ...opened.map((tensor) => tf.keep(tensor)));
}

/** P of the members of a group; those without a gradient have one of zeros. */
function* throughGroup(
  { members, a, g }: Group,
  gradients: ReadonlyMap<number, tf.Tensor2D>,
  { form, damping, corrections }: { form: Form; damping: number; corrections: Corrections | undefined },
): Generator<[number, tf.Tensor2D]> {
  const shape = members.map((layer) => gradients.get(layer)).find((gradient) => gradient)?.shape;
  if (!shape) return;
  const all = members.map((layer) => gradients.get(layer) ?? tf.zeros<tf.Rank.R2>(shape));
  const moments = corrections && (tf.stack(members.map((layer) => corrections.of(layer))) as tf.Tensor3D);
  const preconditioned = form.precondition(tf.stack(all) as tf.Tensor3D, a, g, damping, moments);
  const parts = tf.unstack(preconditioned) as tf.Tensor2D[];
  for (const [i, layer] of members.entries()) if (gradients.has(layer)) yield [layer, parts[i] as tf.Tensor2D];
}

/** Holds the decompositions of these layers in one form. */
export function createDecompositions(form: Form, layers: readonly Layer[]): Decompositions {
  const groups = groupsOf(layers);
  let begun: { readonly key: FactorKey; readonly join: () => Float32Array }[] = [];
  return {
    start(library, keys, factors, damping) {
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
      for (const group of groups) {
        const { a, g } = layers[group.layers[0] as number] as Layer;
        replaceSide(group, 'a', solved, form, a);
        replaceSide(group, 'g', solved, form, g);
      }
    },
    precondition: (gradients, damping, corrections) =>
      new Map(groups.flatMap((group) => [...throughGroup(group, gradients, { form, damping, corrections })])),
    of(layer) {
      const group = groups.find(({ members }) => members.includes(layer));
      if (!group) return undefined;
      const at = group.members.indexOf(layer);
      const own = (tensor: tf.Tensor): tf.Tensor => tf.squeeze(tf.slice(tensor, at, 1), [0]);
      return { a: group.a.map(own), g: group.g.map(own) };
    },
    bytes: () => 4 * groups.flatMap(({ a, g }) => [...a, ...g]).reduce((sum, { size }) => sum + size, 0),
    dispose() {
      for (const { a, g } of groups) tf.dispose([...a, ...g]);
    },
  };
}
