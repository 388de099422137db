import type * as tf from '@tensorflow/tfjs';
import type { Communicator } from './communicator.js';
import { slice } from './data.js';
import { evaluate, type Evaluation } from './evaluate.js';
import { averageModel, sameBits, variablesIn } from './ranks.js';
import type { Run } from './run.js';
import { whileSettled } from './settled.js';

/** What an epoch reports of the validation set. */
export interface Validation {
  readonly validation?: Evaluation;
  readonly nodes?: readonly Evaluation[];
}

type Given = Pick<Run, 'model' | 'loss' | 'ranks'>;

/** Evaluates a model that is the same on all ranks: each takes a part of the examples. */
async function inParts({ model, loss, ranks }: Given, data: Run['data']): Promise<Evaluation> {
  const [from, to] = [ranks.rank, ranks.rank + 1].map((r) => Math.floor((r * data.length) / ranks.size));
  const own = from === to ? { loss: 0 } : evaluate(model, slice(data, from as number, to as number), { loss });
  const examples = (to as number) - (from as number);
  const sums = Float64Array.of(own.loss * examples, (own.accuracy ?? 0) * examples);
  await ranks.allReduce(sums);
  const [lossSum, correct] = sums as unknown as [number, number];
  return { loss: lossSum / data.length, ...(loss.logits && { accuracy: correct / data.length }) };
}

async function ofAllRanks(own: Evaluation, ranks: Communicator): Promise<Evaluation[]> {
  const all = await ranks.allGather(Float64Array.of(own.loss, own.accuracy ?? Number.NaN));
  return Array.from({ length: ranks.size }, (_, rank) => {
    const [loss, accuracy] = [all[2 * rank] as number, all[2 * rank + 1] as number];
    return { loss, ...(own.accuracy !== undefined && { accuracy }) };
  });
}

/** Runs `body` with the mean of the ranks' models; this rank's own weights come back, to the bit. */
async function withMean<R>(model: tf.LayersModel, ranks: Communicator, body: () => Promise<R>): Promise<R> {
  const variables = variablesIn(model);
  const own = variables.map((variable) => variable.clone());
  try {
    await averageModel(model, ranks);
    return await body();
  } finally {
    variables.forEach((variable, i) => variable.assign(own[i] as tf.Tensor));
    for (const tensor of own) tensor.dispose();
  }
}

/**
 * Evaluates a run on its validation set. Ranks whose models differ, be it only in the statistics of batch normalisation,
 * evaluate the mean of their models; where trainable weights differ, each also its own, with its own statistics, as it
 * would be used if that rank were asked alone. Where a link has an average of the weights, that is what is evaluated.
 */
export async function validate(run: Run): Promise<Validation> {
  const { validation: data } = run.options;
  if (!data) return {};
  return whileSettled(run.attachment.context, run.chain.settled(), () => validateOn(run, data));
}

async function validateOn({ model, loss, ranks }: Given, data: Run['data']): Promise<Validation> {
  if (ranks.size === 1) return { validation: evaluate(model, data, { loss }) };
  const given = { model, loss, ranks };
  const trainable = model.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const sameWeights = await sameBits(trainable, ranks);
  if (sameWeights && (await sameBits(variablesIn(model), ranks))) return { validation: await inParts(given, data) };
  const nodes = sameWeights ? undefined : await ofAllRanks(evaluate(model, data, { loss }), ranks);
  const validation = await withMean(model, ranks, () => inParts(given, data));
  return { validation, ...(nodes && { nodes }) };
}
