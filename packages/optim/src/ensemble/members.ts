import type { Param, Stream } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { columnMeans } from './statistics.js';

/** Where the first ensemble is drawn from. */
export interface Prior {
  /** `centre`: around the model's weights. `iid`: around zero. */
  readonly kind: 'centre' | 'iid';
  /** Standard deviation. */
  readonly spread: number;
}

/** The members' weights in one run: Variables [J, …weight], so that checkpoints hold them. */
export interface Members {
  /** The parameters they belong to. */
  readonly params: readonly Param[];
  /** Draws the first ensemble. */
  draw(prior: Prior, random: Stream): void;
  /** All weights of all members, M [J, P]. */
  read(): Float64Array;
  /** M before the last analysis; the first ensemble before the first one. Only where it is asked to be kept. */
  previous(): Float64Array;
  /** Stores M and sets the model's weights to the ensemble mean. What was stored becomes `previous`. */
  write(values: Float64Array): void;
  /** Runs `body` on the stacked weights [J, …], which it borrows: of the members, or of these values [J, P]. */
  use<T>(body: (stacked: readonly tf.Tensor[]) => T, values?: Float64Array): T;
  /** A copy of the stacked weights, one array for each parameter, that outlives the run. */
  copy(): Float32Array[];
  state(): Map<string, tf.Variable>;
  /** Frees the Variables. */
  dispose(): void;
}

/** Runs `body` on stacked weights [J, …weight] made of arrays, one for each parameter. */
export function useStacked<T>(
  params: readonly Param[],
  count: number,
  arrays: readonly Float32Array[],
  body: (stacked: readonly tf.Tensor[]) => T,
): T {
  const made = params.map(({ value }, i) => tf.tensor(arrays[i] ?? [], [count, ...value.shape]));
  try {
    return body(made);
  } finally {
    for (const tensor of made) tensor.dispose();
  }
}

class Store implements Members {
  private readonly variables: tf.Variable[];
  private readonly older: tf.Variable[];

  constructor(
    private readonly owner: string,
    private readonly count: number,
    private readonly keepPrevious: boolean,
    readonly params: readonly Param[],
  ) {
    const make = ({ value }: Param): tf.Variable =>
      tf.tidy(() => tf.variable(tf.zeros([this.count, ...value.shape]), false));
    this.variables = params.map(make);
    this.older = keepPrevious ? params.map(make) : [];
  }

  dispose(): void {
    tf.dispose([...this.variables, ...this.older]);
  }

  copy(): Float32Array[] {
    return this.variables.map((variable) => variable.dataSync<'float32'>().slice());
  }

  state(): Map<string, tf.Variable> {
    const named = (set: readonly tf.Variable[], name: string): [string, tf.Variable][] =>
      set.map((v, i) => [`${this.owner}/${name}/${this.params[i]?.name ?? i}`, v]);
    return new Map([...named(this.variables, 'members'), ...named(this.older, 'previous')]);
  }

  use<T>(body: (stacked: readonly tf.Tensor[]) => T, values?: Float64Array): T {
    return values ? useStacked(this.params, this.count, this.split(values), body) : body(this.variables);
  }

  private get width(): number {
    return this.params.reduce((sum, { value }) => sum + value.size, 0);
  }

  /** Visits each stretch of M [J, P] that one member's weight takes: weight, its size, member, offset in M. */
  private each(visit: (index: number, size: number, member: number, offset: number) => void): void {
    const { width } = this;
    let start = 0;
    this.params.forEach(({ value: { size } }, index) => {
      for (let j = 0; j < this.count; j++) visit(index, size, j, j * width + start);
      start += size;
    });
  }

  private join(variables: readonly tf.Variable[]): Float64Array {
    const values = new Float64Array(this.count * this.width);
    const rows = variables.map((variable) => variable.dataSync<'float32'>());
    this.each((index, size, j, offset) => {
      values.set(rows[index]?.subarray(j * size, (j + 1) * size) ?? [], offset);
    });
    return values;
  }

  /** M [J, P] as one array [J, …weight] for each weight. */
  private split(values: Float64Array): Float32Array[] {
    const rows = this.params.map(({ value }) => new Float32Array(this.count * value.size));
    this.each((index, size, j, offset) => rows[index]?.set(values.subarray(offset, offset + size), j * size));
    return rows;
  }

  read(): Float64Array {
    return this.join(this.variables);
  }

  previous(): Float64Array {
    return this.join(this.older);
  }

  write(values: Float64Array): void {
    const means = columnMeans(values, this.count);
    tf.tidy(() => {
      const rows = this.split(values);
      let start = 0;
      this.params.forEach(({ value }, index) => {
        const now = this.variables[index] as tf.Variable;
        this.older[index]?.assign(now.clone());
        now.assign(tf.tensor(rows[index] as Float32Array, now.shape));
        value.assign(tf.tensor(Float32Array.from(means.subarray(start, start + value.size)), value.shape));
        start += value.size;
      });
    });
  }

  draw({ kind, spread }: Prior, random: Stream): void {
    const centre = this.params.flatMap(({ value }) => Array.from(value.dataSync()));
    const values = Float64Array.from({ length: this.count * centre.length }, (_, index) => {
      const start = kind === 'centre' ? (centre[index % centre.length] as number) : 0;
      return start + spread * random.normal();
    });
    this.write(values);
    // Written twice, it is its own past.
    if (this.keepPrevious) this.write(values);
  }
}

/** Makes the {@link Members} of a run; `keepPrevious` keeps the ensemble before the last analysis too. */
export function openMembers(owner: string, count: number, keepPrevious: boolean, params: readonly Param[]): Members {
  return new Store(owner, count, keepPrevious, params);
}
