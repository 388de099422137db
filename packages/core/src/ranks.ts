import { createHash } from 'node:crypto';
import * as tf from '@tensorflow/tfjs';
import { type Communicator, oneRank } from './communicator.js';
import { FrugalError } from './errors.js';

/**
 * How ranks that exchange tensors divide the examples of a step. `'batch'`: all ranks have the same data set, and each
 * trains on its part of every batch. `'data'`: each rank has a data set of its own, and batches of its own.
 */
export type Division = 'batch' | 'data';

/**
 * The ranks among which the trainer divides its work: those of the communicator where a link exchanges tensors. A method
 * that replaces the whole step divides its own work, so the trainer works as if alone.
 *
 * @param exchange - the link that exchanges, if one does
 * @param wholeStep - does a method replace the whole step?
 * @throws FrugalError `CONFIG` where a link exchanges but there is no communicator, or the reverse
 */
export function ranksOf(
  exchange: string | undefined,
  wholeStep: boolean,
  communicator: Communicator | undefined,
): Communicator {
  if (exchange !== undefined && !communicator) {
    throw new FrugalError('CONFIG', `${exchange} exchanges tensors with other ranks: pass { communicator }.`);
  }
  if (!communicator || wholeStep) return oneRank;
  if (exchange === undefined && communicator.size > 1) {
    throw new FrugalError(
      'CONFIG',
      `expected a link or a method that exchanges tensors with the ${communicator.size} ranks of the communicator but received none: each would train a model of its own. Put such a link before the update, as in [allReduce(), sgd({ … })], or leave the communicator out.`,
    );
  }
  return communicator;
}

/**
 * Compares facts that must be the same on all ranks: one allGather.
 *
 * @throws FrugalError `CONFIG` on all ranks, with the first fact that differs and two of its values
 */
export async function agree(
  owner: string,
  communicator: Communicator,
  facts: Readonly<Record<string, number>>,
): Promise<void> {
  if (communicator.size === 1) return;
  const names = Object.keys(facts);
  const all = await communicator.allGather(Float64Array.from(Object.values(facts)));
  for (const [i, name] of names.entries()) {
    for (let rank = 1; rank < communicator.size; rank++) {
      const [first, other] = [all[i], all[rank * names.length + i]];
      if (first !== other) {
        throw new FrugalError(
          'CONFIG',
          `${owner}: expected the same ${name} on all ranks but rank 0 has ${first} and rank ${rank} has ${other}. Give all ranks the same options; data sets of their own need division 'data' and equally many batches.`,
        );
      }
    }
  }
}

/** The weights of a model, trainable or not. */
export const variablesIn = (model: tf.LayersModel): tf.Variable[] =>
  model.weights.map((weight) => weight.read() as tf.Variable);

/** SHA-256 of the bytes of each rank, in hexadecimal and in the order of ranks: what is the same, and what is not. */
export async function digests(bytes: Iterable<Uint8Array>, communicator: Communicator): Promise<string[]> {
  const hash = createHash('sha256');
  for (const part of bytes) hash.update(part);
  const own = Buffer.from(hash.digest());
  const all = await communicator.allGather(Float64Array.from({ length: 8 }, (_, i) => own.readUInt32BE(4 * i)));
  const hex = [...all].map((word) => word.toString(16).padStart(8, '0'));
  return Array.from({ length: communicator.size }, (_, rank) => hex.slice(8 * rank, 8 * rank + 8).join(''));
}

/** Gathers one number of each rank, which also waits for all of them. */
export async function gatherOne(value: number, communicator: Communicator): Promise<number[]> {
  return [...(await communicator.allGather(Float64Array.of(value)))];
}

/** Do all ranks hold the same bits in these variables? */
export async function sameBits(variables: readonly tf.Variable[], communicator: Communicator): Promise<boolean> {
  const bytes: Uint8Array[] = [];
  for (const variable of variables) {
    const values = await variable.data();
    bytes.push(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  const all = await digests(bytes, communicator);
  return all.every((digest) => digest === all[0]);
}

/** Replaces every variable by what `change` makes of all values together, in one array of the given type. */
async function changeTogether<A extends Float32Array | Float64Array>(
  variables: readonly tf.Variable[],
  values: A,
  change: (values: A) => Promise<void>,
): Promise<void> {
  let at = 0;
  for (const variable of variables) {
    values.set(await variable.data(), at);
    at += variable.size;
  }
  await change(values);
  tf.tidy(() => {
    let from = 0;
    for (const variable of variables) {
      const to = from + variable.size;
      variable.assign(tf.tensor(Float32Array.from(values.subarray(from, to)), variable.shape, 'float32'));
      from = to;
    }
  });
}

const total = (variables: readonly tf.Variable[]): number => variables.reduce((sum, { size }) => sum + size, 0);

/** Gives all ranks the weights of rank 0, trainable or not: one broadcast. */
export async function shareWeights(model: tf.LayersModel, communicator: Communicator): Promise<void> {
  if (communicator.size === 1) return;
  const variables = variablesIn(model);
  const values = new Float32Array(total(variables));
  await changeTogether(variables, values, (all) => communicator.broadcast(all));
}

/**
 * Replaces the weights of a model, statistics of batch normalisation included, by their mean over the ranks: the model
 * that a decentralised run stands for, since at its end each rank still has weights of its own. Summed in float64 and
 * rounded once, so weights that are equal on all ranks keep their bits, and all ranks end with the same ones.
 *
 * Cost: one allReduce of 8 bytes per weight.
 *
 * @param model - a built model, of the same architecture on all ranks
 * @param communicator - the ranks; all must call
 * @throws FrugalError `COMMUNICATION` as the communicator does
 */
export async function averageModel(model: tf.LayersModel, communicator: Communicator): Promise<void> {
  if (communicator.size === 1) return;
  const variables = variablesIn(model);
  const values = new Float64Array(total(variables));
  await changeTogether(variables, values, async (all) => {
    await communicator.allReduce(all);
    for (let i = 0; i < all.length; i++) all[i] = (all[i] as number) / communicator.size;
  });
}
