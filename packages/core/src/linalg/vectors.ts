import type { VectorLoops } from '@frugal/native';
import { FrugalError } from '../errors.js';

/** A vector that `weightedSum` takes. */
export type FloatVector = Float32Array | Float64Array;

/** Below this length a call of the addon costs more than it saves. */
const NATIVE_LENGTH = 2048;
/** Elements whose sums are kept in float64 at a time, where there are many parts. */
const BLOCK = 1024;

const isSingle = (vector: FloatVector): vector is Float32Array => vector instanceof Float32Array;

/**
 * into[i] ← Σ_k weights[k]·parts[k][i], all of the length of `into`. Products and sums, in the order of parts, are float64
 * and rounded once to the type of `into`; without parts it is 0. `into` may be one of the parts, but not overlap one
 * otherwise. Throws {@link FrugalError} `SHAPE` for parts of another number or length.
 */
export type WeightedSum = (into: FloatVector, weights: readonly number[], parts: readonly FloatVector[]) => void;

/** {@link WeightedSum} in JavaScript. */
export const weightedSum: WeightedSum = (into, weights, parts) => {
  checkParts(into, weights, parts);
  sumInJavaScript(into, weights, parts);
};

/**
 * The fastest {@link WeightedSum} that is to be had: by the addon of `@frugal/native`, which makes long float32 vectors several
 * times as fast, or in JavaScript where there is none or `FRUGAL_NATIVE` is `off`. The same bits either way (of NaN, that it is
 * one: its bits are the processor's). The engine of TensorFlow.js does not matter. Links call it in their `prepare`.
 */
export async function fastestSum(): Promise<WeightedSum> {
  let native: VectorLoops;
  try {
    const { loadVectors } = await import('@frugal/native');
    native = loadVectors();
  } catch {
    return weightedSum;
  }
  return (into, weights, parts) => {
    checkParts(into, weights, parts);
    const long = into.length >= NATIVE_LENGTH && parts.length > 0 && parts.length <= native.maxParts;
    if (long && isSingle(into) && parts.every(isSingle)) native.weightedSum(into, weights, parts);
    else sumInJavaScript(into, weights, parts);
  };
}

function checkParts(into: FloatVector, weights: readonly number[], parts: readonly FloatVector[]): void {
  if (parts.length !== weights.length)
    throw new FrugalError(
      'SHAPE',
      `weightedSum: expected a part for each of ${weights.length} weights but received ${parts.length}. Pass as many.`,
    );
  for (const [k, { length }] of parts.entries())
    if (length !== into.length)
      throw new FrugalError(
        'SHAPE',
        `weightedSum: expected parts of ${into.length} numbers, as the sum has, but part ${k} has ${length}. Cut it by subarray().`,
      );
}

/** `weightedSum` without its checks. */
export function sumInJavaScript(into: FloatVector, weights: readonly number[], parts: readonly FloatVector[]): void {
  const [a = 0, b = 0, c = 0] = weights;
  const [x = into, y = into, z = into] = parts;
  if (parts.length === 0) into.fill(0);
  else if (parts.length === 1) sumOfOne(into, a, x);
  else if (parts.length === 2) sumOfTwo(into, a, x, b, y);
  else if (parts.length === 3) sumOfThree(into, [a, b, c], x, y, z);
  else sumOfMany(into, weights, parts);
}

function sumOfOne(into: FloatVector, a: number, x: FloatVector): void {
  for (let i = 0; i < into.length; i++) into[i] = a * (x[i] as number);
}

function sumOfTwo(into: FloatVector, a: number, x: FloatVector, b: number, y: FloatVector): void {
  for (let i = 0; i < into.length; i++) into[i] = a * (x[i] as number) + b * (y[i] as number);
}

function sumOfThree(
  into: FloatVector,
  [a, b, c]: readonly [number, number, number],
  x: FloatVector,
  y: FloatVector,
  z: FloatVector,
): void {
  for (let i = 0; i < into.length; i++) into[i] = a * (x[i] as number) + b * (y[i] as number) + c * (z[i] as number);
}

/** In blocks, each read in whole before it is written: `into` may be a part. */
function sumOfMany(into: FloatVector, weights: readonly number[], parts: readonly FloatVector[]): void {
  const sums = new Float64Array(Math.min(BLOCK, into.length));
  for (let start = 0; start < into.length; start += BLOCK) {
    const length = Math.min(BLOCK, into.length - start);
    parts.forEach((part, k) => {
      const weight = weights[k] as number;
      if (k === 0) for (let i = 0; i < length; i++) sums[i] = weight * (part[start + i] as number);
      else for (let i = 0; i < length; i++) sums[i] = (sums[i] as number) + weight * (part[start + i] as number);
    });
    into.set(sums.subarray(0, length), start);
  }
}
