import { FrugalError, type LocalTransform, type Param, type Stream } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { columnMeans } from './solve.js';

/** Where the first ensemble is drawn from. */
export interface Prior {
  /** `centre`: around the model's weights. `iid`: around zero. */
  readonly kind: 'centre' | 'iid';
  /** Standard deviation. */
  readonly spread: number;
}

/**
 * The members' weights: Variables [J, …weight] while a run lasts, so that checkpoints hold them, and copies after it.
 */
export interface Members {
  /** The link that makes, saves and frees the Variables. It moves nothing. */
  readonly link: LocalTransform;
  /** The parameters they belong to; throws before the first run. */
  params(): readonly Param[];
  /** Draws the first ensemble. */
  draw(prior: Prior, random: Stream): void;
  /** All weights of all members, M [J, P]. */
  read(): Float64Array;
  /** Stores M and sets the model's weights to the ensemble mean. */
  write(values: Float64Array): void;
  /** Runs `body` on the stacked weights [J, …], which it borrows. */
  use<T>(body: (stacked: readonly tf.Tensor[]) => T): T;
  /** Forgets the ensemble. */
  dispose(): void;
}

class Store {
  params: readonly Param[] = [];
  private variables: tf.Variable[] = [];
  private kept: Float32Array[] = [];

  constructor(
    private readonly owner: string,
    private readonly count: number,
  ) {}

  init(params: readonly Param[]): void {
    this.dispose();
    this.params = params;
    this.variables = params.map(({ value }) => tf.variable(tf.zeros([this.count, ...value.shape]), false));
  }

  /** Ends a run: the Variables go, their values stay. */
  settle(): void {
    if (this.variables.length > 0) this.kept = this.variables.map((variable) => variable.dataSync<'float32'>().slice());
    for (const variable of this.variables) variable.dispose();
    this.variables = [];
  }

  dispose(): void {
    this.settle();
    this.kept = [];
  }

  state(): Map<string, tf.Variable> {
    return new Map(this.variables.map((v, i) => [`${this.owner}/members/${this.params[i]?.name ?? i}`, v]));
  }

  use<T>(body: (stacked: readonly tf.Tensor[]) => T): T {
    if (this.variables.length > 0) return body(this.variables);
    const made = this.params.map(({ value }, i) => tf.tensor(this.kept[i] ?? [], [this.count, ...value.shape]));
    try {
      return body(made);
    } finally {
      for (const tensor of made) tensor.dispose();
    }
  }

  private get width(): number {
    return this.params.reduce((sum, { value }) => sum + value.size, 0);
  }

  /** Visits each stretch of M [J, P] that one member's weight takes: weight, member, offset in M. */
  private each(visit: (index: number, member: number, offset: number) => void): void {
    let start = 0;
    this.params.forEach(({ value }, index) => {
      for (let j = 0; j < this.count; j++) visit(index, j, j * this.width + start);
      start += value.size;
    });
  }

  read(): Float64Array {
    const values = new Float64Array(this.count * this.width);
    const rows = this.variables.map((variable) => variable.dataSync<'float32'>());
    this.each((index, j, offset) => {
      const size = this.params[index]?.value.size ?? 0;
      values.set(rows[index]?.subarray(j * size, (j + 1) * size) ?? [], offset);
    });
    return values;
  }

  write(values: Float64Array): void {
    const rows = this.variables.map(({ size }) => new Float32Array(size));
    this.each((index, j, offset) => {
      const size = this.params[index]?.value.size ?? 0;
      rows[index]?.set(values.subarray(offset, offset + size), j * size);
    });
    const means = columnMeans(values, this.count);
    let start = 0;
    tf.tidy(() => {
      this.params.forEach(({ value }, index) => {
        this.variables[index]?.assign(tf.tensor(rows[index] as Float32Array, [this.count, ...value.shape]));
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
  }
}

/** Makes the {@link Members} of a method. */
export function makeMembers(owner: string, count: number): Members {
  const store = new Store(owner, count);
  const refuse = (): never => {
    throw new FrugalError('CONFIG', `${owner} makes the whole step and takes no gradients: run it by train().`);
  };
  return {
    link: {
      kind: 'local',
      name: owner,
      init: (params) => store.init(params),
      update: refuse,
      apply: refuse,
      state: () => store.state(),
      dispose: () => store.settle(),
    },
    params() {
      if (store.params.length > 0) return store.params;
      throw new FrugalError('CONFIG', `${owner}: there is no ensemble yet. Run train() first.`);
    },
    draw: (prior, random) => store.draw(prior, random),
    read: () => store.read(),
    write: (values) => store.write(values),
    use: (body) => store.use(body),
    dispose: () => {
      store.dispose();
      store.params = [];
    },
  };
}
