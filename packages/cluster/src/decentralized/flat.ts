import { FrugalError, type Param, readInto, type State, tensorOf, type Updates } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { RankVectors } from './recursion.js';

/** Where a weight lies among all. */
interface Span {
  readonly param: Param;
  readonly start: number;
  readonly end: number;
}

/** All weights of a model as one float32 array, with the state beside them in Variables, one per slot and weight. */
export interface Flat {
  /** Makes arrays and state of these weights; frees what it had. */
  init(params: readonly Param[]): void;
  /** Weights, gradients (0 where there is none) and state as vectors, the same ones at each call. */
  load(updates: Updates, params: readonly Param[]): Promise<RankVectors<Float32Array>>;
  /** Calls `visit` with the place of each weight. */
  each(visit: (param: Param, start: number, end: number) => void): void;
  /** Writes the state back, and returns what the weights lack to `x`. */
  store(vectors: RankVectors<Float32Array>): Map<string, tf.Tensor>;
  /** The state, by name. */
  state(): State;
  /** Frees the state. */
  dispose(): void;
}

/** Reads the tensors of weights, 0 where there is none; all at once, since copies from a device overlap. */
async function readAll(
  into: Float32Array,
  spans: readonly Span[],
  tensorAt: (span: Span, index: number) => tf.Tensor | undefined,
): Promise<void> {
  const reads = spans.map(async (span, index) => {
    const part = into.subarray(span.start, span.end);
    const tensor = tensorAt(span, index);
    if (tensor) await readInto(part, tensor);
    else part.fill(0);
  });
  await Promise.all(reads);
}

function spansOf(params: readonly Param[]): Span[] {
  let end = 0;
  return params.map((param) => ({ param, start: end, end: (end += param.value.size) }));
}

/** State of one weight after the other, per slot. */
interface Slots {
  init(spans: readonly Span[]): void;
  /** The Variables of a slot, in the order of weights. */
  of(slot: string): readonly tf.Variable[];
  state(): State;
  dispose(): void;
}

function createSlots(owner: string, slots: readonly string[]): Slots {
  const variables = new Map<string, Map<string, tf.Variable>>();
  const dispose = (): void => {
    for (const slot of variables.values()) for (const variable of slot.values()) variable.dispose();
    variables.clear();
  };
  const make = ({ param: { name, value } }: Span, slot: string): readonly [string, tf.Variable] => [
    `${owner}/${slot}/${name}`,
    tf.tidy(() => tf.variable(tf.zeros(value.shape), false)),
  ];
  return {
    init(spans) {
      dispose();
      for (const slot of slots) variables.set(slot, new Map(spans.map((span) => make(span, slot))));
    },
    of: (slot) => [...(variables.get(slot)?.values() ?? [])],
    state: () => new Map([...variables.values()].flatMap((slot) => [...slot])),
    dispose,
  };
}

function emptyVectors(length: number, slots: readonly string[]): RankVectors<Float32Array> {
  const make = (): Float32Array => new Float32Array(length);
  return { x: make(), g: make(), state: Object.fromEntries(slots.map((slot) => [slot, make()])) };
}

/** Makes an empty {@link Flat} with these slots of state, named `owner/slot/weight`. */
export function createFlat(owner: string, slotNames: readonly string[]): Flat {
  const slots = createSlots(owner, slotNames);
  let spans: readonly Span[] = [];
  let vectors = emptyVectors(0, slotNames);
  return {
    init(params) {
      spans = spansOf(params);
      vectors = emptyVectors(spans.at(-1)?.end ?? 0, slotNames);
      slots.init(spans);
    },
    async load(updates, params) {
      const same = params.length === spans.length && spans.every(({ param }, i) => param.value === params[i]?.value);
      if (!same || params.length === 0) throw foreign(owner, params.length, spans.length);
      const { x, g, state } = vectors;
      await readAll(x, spans, ({ param }) => param.value);
      await readAll(g, spans, ({ param }) => updates.get(param.name));
      for (const [slot, values] of Object.entries(state)) {
        const variables = slots.of(slot);
        await readAll(values, spans, (_, index) => variables[index]);
      }
      return vectors;
    },
    each(visit) {
      for (const { param, start, end } of spans) visit(param, start, end);
    },
    store({ x, state }) {
      const part = (vector: Float32Array, { start, end, param }: Span): tf.Tensor =>
        tensorOf(vector.subarray(start, end), param.value.shape);
      const changes = tf.tidy(() => {
        for (const [slot, values] of Object.entries(state))
          slots.of(slot).forEach((variable, i) => variable.assign(part(values, spans[i] as Span)));
        return Object.fromEntries(spans.map((span) => [span.param.name, tf.sub(part(x, span), span.param.value)]));
      });
      return new Map(Object.entries(changes));
    },
    state: () => slots.state(),
    dispose() {
      slots.dispose();
      spans = [];
      vectors = emptyVectors(0, slotNames);
    },
  };
}

function foreign(owner: string, received: number, expected: number): FrugalError {
  return new FrugalError(
    'CONFIG',
    `${owner}: expected the ${expected} weights that init has seen but received ${received}, or those of another model. Each rank needs a link of its own: make it inside the function that a rank runs.`,
  );
}
