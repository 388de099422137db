import { checkNumber, type Opened, type RunContext, signProduct, type Site, type Stream, stream } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { packSigns } from './bits.js';

/** What a feedback matrix is asked for: its site, the run's seed, and its size. */
export interface Request {
  readonly site: Site;
  readonly seed: number;
  /** Values per example of the layer that receives the feedback. */
  readonly inputs: number;
  /** Length of e. */
  readonly errors: number;
}

/** A fixed feedback matrix B = gain · values, [inputs, errors]. */
export interface Matrix {
  readonly gain: number;
  /** e·valuesᵀ [N, inputs] of e [N, errors], without the gain. The surrounding tidy frees it. */
  product(e: tf.Tensor2D): tf.Tensor2D;
  /** What is stored: views of one buffer are stored once. */
  readonly stored: { readonly byteLength: number };
}

/** The matrices of one run. */
export interface Matrices extends Pick<Opened, 'state' | 'dispose'> {
  /** The matrix of a site; the same one in every step. */
  of(request: Request): Matrix;
}

/** Where the matrices come from: opens them for one run. */
export type MatrixSource = (context: RunContext) => Matrices;

/** A factor of the feedback, for all layers or for each. */
export type Scale = number | ((site: Site) => number);

/** A law of random entries with gain(inputs) for its size. */
export interface Law {
  draw(random: Stream): number;
  gain(inputs: number): number;
}

/** U(−1/√m, 1/√m) and N(0, 1/m), m the size of the layer that receives the feedback. */
export const LAWS = {
  uniform: { draw: (random: Stream) => 2 * random.next() - 1, gain: (m: number) => 1 / Math.sqrt(m) },
  gaussian: { draw: (random: Stream) => random.normal(), gain: (m: number) => 1 / Math.sqrt(m) },
} as const satisfies Record<string, Law>;

/** Checks a constant scale at once and hands back one that checks what a function gives. */
export function scaleOf(owner: string, scale: Scale): (site: Site) => number {
  if (typeof scale !== 'function') {
    const constant = checkNumber(owner, 'scale', scale);
    return () => constant;
  }
  return (site) => checkNumber(owner, `scale of site ${site.name}`, scale(site));
}

/** Draws a matrix row by row: a longer one begins with the rows of a shorter one. */
function drawn(law: Law, random: Stream, inputs: number, errors: number): Float32Array {
  return Float32Array.from({ length: inputs * errors }, () => law.draw(random));
}

type Stored = Float32Array | Int32Array;

/** What is stored for a path in one run: made once, and again only for another seed or size. */
function cached<S extends Stored>(make: (random: Stream, inputs: number, errors: number) => S, shared: boolean) {
  const own = new Map<Site, { seed: number; inputs: number; errors: number; values: S }>();
  const common = new Map<string, { inputs: number; values: S }>();
  return ({ site, seed, inputs, errors }: Request): S => {
    if (shared) {
      const key = `${seed}/${errors}`;
      const found = common.get(key);
      if (found && found.inputs >= inputs) return found.values;
      const values = make(stream(seed, 'feedback', 'shared'), inputs, errors);
      common.set(key, { inputs, values });
      return values;
    }
    const found = own.get(site);
    if (found?.seed === seed && found.inputs === inputs && found.errors === errors) return found.values;
    const values = make(stream(seed, 'feedback', site.index), inputs, errors);
    own.set(site, { seed, inputs, errors, values });
    return values;
  };
}

/**
 * Random matrices in float32. Shared: one long matrix, of which each layer takes the first rows, with its own gain.
 */
export function floatSource(law: Law, scale: (site: Site) => number, shared: boolean): MatrixSource {
  return () => {
    const valuesOf = cached((...size) => drawn(law, ...size), shared);
    return {
      of(request) {
        const { site, inputs, errors } = request;
        const values = valuesOf(request);
        return {
          gain: law.gain(inputs) * scale(site),
          stored: values.buffer,
          product: (e) => tf.matMul(e, tf.tensor2d(values.subarray(0, inputs * errors), [inputs, errors]), false, true),
        };
      },
    };
  };
}

/** The signs of the uniform matrices that {@link floatSource} draws from the same seed, one bit each. */
export function signSource(gain: (site: Site, inputs: number) => number, shared: boolean): MatrixSource {
  return () => {
    const bitsOf = cached((random, ...size) => packSigns(...size, () => LAWS.uniform.draw(random)), shared);
    return {
      of(request) {
        const { site, inputs, errors } = request;
        const bits = bitsOf(request);
        return {
          gain: gain(site, inputs),
          stored: bits.buffer,
          product: (e) => signProduct(e, { bits, columns: inputs, stride: bits.length / errors }),
        };
      },
    };
  };
}
