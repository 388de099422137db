import {
  FrugalError,
  linearAlgebra,
  type LinearAlgebra,
  type Param,
  type SymmetricEigen,
  toMatrix,
  unprepared,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

/** One of the two sides of a gradient G [m, n]. */
export interface Side {
  /** `'L'`: of rows, Σ G·Gᵀ [m, m]. `'R'`: of columns, Σ Gᵀ·G [n, n]. */
  readonly name: 'L' | 'R';
  /** Running sum or average of G·Gᵀ or Gᵀ·G; zeros at first. */
  readonly sum: tf.Variable;
  /** What was last made of its eigenvectors; the identity at first. */
  readonly derived: tf.Variable;
}

/** A weight as a matrix: [h·w·C, O] of a convolution, [1, n] of a vector. */
export interface Folded {
  /** Name of the weight. */
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** Those that are kept: two, one or none. */
  readonly sides: readonly Side[];
}

/** Which sides of which weights are kept. */
export type SideFilter = (param: Param, side: Side['name'], size: number) => boolean;

/** The sides of all weights, kept in Variables `owner/L/<weight>` and `owner/<derived>L/<weight>`, R alike. */
export interface Sides {
  /** Loads the linear algebra. */
  prepare(): Promise<void>;
  /** A weight as a matrix, with its sides. Throws `CONFIG` for a weight that they were not made for. */
  of(param: Param): Folded;
  /** Decomposes the sums of all sides, on several threads where the library has them; stores what `derive` makes of them. */
  decompose(derive: (eigen: SymmetricEigen, of: Folded) => tf.Tensor): void;
  state(): Map<string, tf.Variable>;
  dispose(): void;
}

const square = (n: number, start: 'zeros' | 'identity'): tf.Variable =>
  tf.tidy(() => tf.variable(start === 'identity' ? tf.eye(n) : tf.zeros([n, n]), false));

function foldOf({ name, value }: Param, keeps: (side: Side['name'], size: number) => boolean): Folded {
  const columns = value.shape.at(-1) ?? 1;
  const rows = value.size / columns;
  const side = (of: Side['name'], size: number): Side[] =>
    keeps(of, size) ? [{ name: of, sum: square(size, 'zeros'), derived: square(size, 'identity') }] : [];
  return { name, rows, columns, sides: [...side('L', rows), ...side('R', columns)] };
}

/** Begins to decompose the sum of a side; the function that is returned waits. */
function begin(owner: string, algebra: LinearAlgebra, { name }: Folded, side: Side): () => SymmetricEigen {
  try {
    return algebra.startSymmetricEigen(toMatrix(side.sum));
  } catch (error) {
    if (!FrugalError.is(error, 'NON_FINITE')) throw error;
    throw new FrugalError(
      'NON_FINITE',
      `${owner}: expected finite gradients of ${name} but received NaN or infinity. Lower the learning rate, or clip.`,
      { cause: error },
    );
  }
}

/** Makes {@link Sides} for these weights; `derived` is the word before L and R in the names of what is derived. */
export function openSides(owner: string, derived: string, filter: SideFilter, params: readonly Param[]): Sides {
  const weights = new Map(
    params.map((param) => [param.name, foldOf(param, (side, size) => filter(param, side, size))]),
  );
  let algebra: LinearAlgebra | undefined;
  const each = (): { readonly of: Folded; readonly side: Side }[] =>
    [...weights.values()].flatMap((of) => of.sides.map((side) => ({ of, side })));
  return {
    async prepare() {
      algebra ??= await linearAlgebra();
    },
    of({ name }) {
      const known = weights.get(name);
      if (known) return known;
      throw new FrugalError(
        'CONFIG',
        `${owner}: expected a weight that the run was opened with but received ${name}. Open a run of its own.`,
      );
    },
    decompose(derive) {
      const library = algebra ?? unprepared(owner);
      const begun = each().map(({ of, side }) => ({ of, side, join: begin(owner, library, of, side) }));
      for (const { of, side, join } of begun) tf.tidy(() => side.derived.assign(derive(join(), of)));
    },
    state: () =>
      new Map(
        each().flatMap(({ of, side }) => [
          [`${owner}/${side.name}/${of.name}`, side.sum] as const,
          [`${owner}/${derived}${side.name}/${of.name}`, side.derived] as const,
        ]),
      ),
    dispose() {
      for (const { side } of each()) tf.dispose([side.sum, side.derived]);
      weights.clear();
    },
  };
}

/** A tensor of a weight's shape as its matrix. */
export const foldTensor = (x: tf.Tensor, { rows, columns }: Folded): tf.Tensor2D => tf.reshape(x, [rows, columns]);

/** G·Gᵀ or Gᵀ·G. */
export const outer = (g: tf.Tensor2D, { name }: Side): tf.Tensor2D =>
  name === 'L' ? tf.matMul(g, g, false, true) : tf.matMul(g, g, true, false);

/** D_L·X·D_Rᵀ for what was derived of each side; with `transposed`, D_Lᵀ·X·D_R. A side that is not kept has none. */
export function betweenSides(x: tf.Tensor2D, { sides }: Folded, transposed = false): tf.Tensor2D {
  let result = x;
  for (const { name, derived } of sides) {
    const matrix = derived as tf.Tensor as tf.Tensor2D;
    result = name === 'L' ? tf.matMul(matrix, result, transposed) : tf.matMul(result, matrix, false, !transposed);
  }
  return result;
}
