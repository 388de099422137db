import {
  attach,
  type Batch,
  checkInteger,
  checkOptions,
  clockAt,
  crossEntropy,
  type Loss,
  type Method,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { cosineOf, degrees } from './feedback.js';

/** Options of {@link alignment}. */
export interface AlignmentOptions {
  /** Default: cross-entropy. */
  readonly loss?: Loss;
  /** Seed of the run: random feedback is drawn from it, and the masks of dropout. Default 0. */
  readonly seed?: number;
  /** Step whose streams and schedules are used. Default 0. */
  readonly step?: number;
}

/** How far a method's gradients at one site point with those of back-propagation. */
export interface Alignment {
  /** Name of the site. */
  readonly site: string;
  /** Cosine between the two dY, the gradients before the activation. */
  readonly signal: number;
  /** Cosine between the two dW. */
  readonly weight: number;
  /** Angle between the two dW, in degrees. */
  readonly angle: number;
}

type Gradients = Map<string, { dy: Float32Array; dw: Float32Array }>;

/** One forward and backward pass; no weight moves. */
function gradientsOf(
  model: tf.LayersModel,
  methods: readonly Method[],
  { xs, ys }: Batch,
  { loss = crossEntropy, seed = 0, step = 0 }: AlignmentOptions,
): Gradients {
  const signals = new Map<string, Float32Array>();
  const spy: Method = {
    name: 'alignment',
    source: 'observer',
    observer: {
      name: 'alignment',
      onBackward: ({ site }, _x, dy) => void signals.set(site.name, Float32Array.from(dy.dataSync())),
    },
  };
  const attachment = attach(model, ...methods, spy);
  try {
    attachment.begin(clockAt(step), { seed, logits: loss.logits });
    const kernels = attachment.sites.map(({ kernel }) => kernel);
    let found: Gradients = new Map();
    tf.tidy(() => {
      const { grads } = tf.variableGrads(
        () => loss.compute(model.apply(xs, { training: true }) as tf.Tensor, ys).loss,
        kernels,
      );
      found = new Map(
        attachment.sites.flatMap(({ name, kernel }) => {
          const [dy, dw] = [signals.get(name), grads[kernel.name]];
          return dy && dw ? [[name, { dy, dw: Float32Array.from(dw.dataSync()) }] as const] : [];
        }),
      );
    });
    return found;
  } finally {
    attachment.detach();
  }
}

/**
 * Compares the gradients of a method with those of back-propagation, at the same weights, batch and dropout masks:
 *   signal = cos(dY of the method, dY),   weight = cos(dW of the method, dW)
 * for each site, in order. Exact whatever lies between the sites: it runs both backward passes. The weights, moving
 * averages included, are as before. Call it between runs: a model that is attached is refused. A method with
 * `measureEvery` tells less, while training: it compares its feedback with dY·Wᵀ of the dY that feedback has made.
 *
 * @param model - a built model of one output
 * @param method - any method that replaces products
 * @param batch - inputs and targets, which stay the caller's
 * @throws FrugalError `CONFLICT` when the model is attached, `CONFIG`
 */
export function alignment(
  model: tf.LayersModel,
  method: Method,
  batch: Batch,
  options: AlignmentOptions = {},
): Alignment[] {
  checkOptions('alignment', options, ['loss', 'seed', 'step']);
  checkInteger('alignment', 'step', options.step ?? 0, { min: 0 });
  const fresh = (method.transforms ?? []).filter((link) => link.state().size === 0);
  const before = tf.tidy(() => model.getWeights().map((weight) => tf.keep(tf.clone(weight))));
  try {
    const exact = gradientsOf(model, [], batch, options);
    model.setWeights(before);
    const actual = gradientsOf(model, [method], batch, options);
    return [...exact].map(([site, { dy, dw }]) => {
      const other = actual.get(site);
      const weight = other ? cosineOf(other.dw, dw) : 0;
      return { site, signal: other ? cosineOf(other.dy, dy) : 0, weight, angle: degrees(weight) };
    });
  } finally {
    model.setWeights(before);
    tf.dispose(before);
    for (const link of fresh) link.dispose();
  }
}
