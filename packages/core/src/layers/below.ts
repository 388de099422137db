import { type CallableLayer, inputsOf, onlyConsumer } from './keras.js';

/** The layer that a layer's x comes from. */
export interface LayerBelow {
  /** One of the layers asked for. */
  readonly layer: CallableLayer;
  /** Class names of the layers between, from that layer on. */
  readonly through: readonly string[];
}

/**
 * The layer, of some, that a layer's x comes from by a plain chain: each layer takes from one layer and gives to one.
 * Undefined at a join, a branch, an input, or a layer that is used twice; and not seen across the border of a nested model.
 */
export function below(layer: CallableLayer, some: ReadonlySet<CallableLayer>): LayerBelow | undefined {
  const through: string[] = [];
  for (let at = layer; ; ) {
    const [from, ...others] = inputsOf(at);
    if (from === undefined || others.length > 0 || onlyConsumer(from) !== at) return undefined;
    if (some.has(from)) return { layer: from, through };
    through.unshift(from.getClassName());
    at = from;
  }
}
