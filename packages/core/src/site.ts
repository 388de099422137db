import type * as tf from '@tensorflow/tfjs';
import type { Geometry } from './geometry.js';

/** Where the x of a site comes from. */
export interface Below {
  /** The site whose result it is. */
  readonly site: Site;
  /** Class names of the layers between, from that site on. */
  readonly through: readonly string[];
}

/**
 * A weight whose products can be replaced or observed, and the layer it belongs to. Sites are told apart by identity. A layer
 * that is used twice in a model has one site and two calls in a step.
 */
export interface Site {
  /** Position among the model's sites. Seeds derive from it: automatic layer names differ between two builds of one model. */
  readonly index: number;
  /** The layer's name; inside nested models, the names joined by `/`. Where two paths are equal, the later ones end in `#2`, …. */
  readonly name: string;
  /** How the layer multiplies. */
  readonly geometry: Geometry;
  /** The weight. */
  readonly kernel: tf.Variable;
  /** The bias, if the layer has one. It is never sampled. */
  readonly bias?: tf.Variable;
  /** `output` for the layer that makes the model's predictions. */
  readonly role: 'hidden' | 'output';
  /** Where x comes from, if that is one other site by a plain chain of layers. */
  readonly below?: Below;
}
