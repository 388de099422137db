import { type Param, readInto, type State, tensorOf, type Updates } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { RankVectors } from './recursion.js';

/** Where a weight lies among all. */
interface Span {
  readonly param: Param;
  readonly start: number;
  readonly end: number;
}

/** All weights of a run as one float32 array, with the state beside them in Variables, one per slot and weight. */
export interface Flat {
  /** Weights, gradients (0 where there is none) and state as vectors, the same ones at each call. */
  load(gradients: Updates): Promise<RankVectors<Float32Array>>;
  /** Calls `visit` with the place of each weight. */
  each(visit: (param: Param, start: number, end: number) => void): void;
  /** Moves weights and state to where the vectors are. */
  store(vectors: RankVectors<Float32Array>): void;
  /** The state, by name. */
  state(): State;
  /** Frees state and vectors. */
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
  /** The Variables of a slot, in the order of weights. */
  of(slot: string): readonly tf.Variable[];
  state(): State;
  dispose(): void;
}

function openSlots(owner: string, slots: readonly string[], spans: readonly Span[]): Slots {
  const make = ({ param: { name, value } }: Span, slot: string): readonly [string, tf.Variable] => [
    `${owner}/${slot}/${name}`,
    tf.tidy(() => tf.variable(tf.zeros(value.shape), false)),
  ];
  const variables = new Map(slots.map((slot) => [slot, new Map(spans.map((span) => make(span, slot)))]));
  return {
    of: (slot) => [...(variables.get(slot)?.values() ?? [])],
    state: () => new Map([...variables.values()].flatMap((slot) => [...slot])),
    dispose() {
      for (const slot of variables.values()) for (const variable of slot.values()) variable.dispose();
      variables.clear();
    },
  };
}

function zeroVectors(length: number, slots: readonly string[]): RankVectors<Float32Array> {
  const make = (): Float32Array => new Float32Array(length);
  return { x: make(), g: make(), state: Object.fromEntries(slots.map((slot) => [slot, make()])) };
}

const partOf = (vector: Float32Array, { start, end, param }: Span): tf.Tensor =>
  tensorOf(vector.subarray(start, end), param.value.shape);

/** Opens a {@link Flat} of these weights, with slots of state named `owner/slot/weight`, zero at the start. */
export function openFlat(owner: string, slotNames: readonly string[], params: readonly Param[]): Flat {
  const spans = spansOf(params);
  const slots = openSlots(owner, slotNames, spans);
  let vectors = zeroVectors(spans.at(-1)?.end ?? 0, slotNames);
  return {
    async load(gradients) {
      const { x, g, state } = vectors;
      await readAll(x, spans, ({ param }) => param.value);
      await readAll(g, spans, ({ param }) => gradients.get(param.name));
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
      tf.tidy(() => {
        for (const [slot, values] of Object.entries(state))
          slots.of(slot).forEach((variable, i) => variable.assign(partOf(values, spans[i] as Span)));
        for (const span of spans) {
          const { value } = span.param;
          // W + (x − W), not x: runs keep the bits that they had when links handed ΔW to the chain.
          value.assign(tf.add(value, tf.sub(partOf(x, span), value)));
        }
      });
    },
    state: () => slots.state(),
    dispose() {
      slots.dispose();
      vectors = zeroVectors(0, slotNames);
    },
  };
}
