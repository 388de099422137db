import {
  attach,
  type Attachment,
  batches,
  clockAt,
  type Communicator,
  crossEntropy,
  type Dataset,
  type Link,
  type Method,
  openChain,
  type Scope,
  slice,
} from '@frugal/core';
import { toyImages, toyModel, weightsOf } from '@frugal/core/testing';
import * as tf from '@tensorflow/tfjs';

/** A run by hand, without the trainer's division of the data. For tests only. */
export interface HandRun {
  readonly steps: number;
  /** How many examples of each step's batch each rank has. */
  readonly parts: readonly number[];
  /** The links of one rank. */
  readonly links: () => readonly Link[];
  readonly methods?: () => readonly Method[];
  readonly model?: () => tf.LayersModel;
  readonly data?: Dataset;
  /** Looks at a rank after each step. */
  readonly after?: (rank: number, step: number, model: tf.LayersModel) => void;
  /** Asks the run of a rank at its end. */
  readonly end?: (attachment: Attachment) => void;
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** The gradients of the mean loss over some examples, by weight name. */
function gradientsOf(model: tf.LayersModel, attachment: Attachment, examples: Dataset): Record<string, tf.Tensor> {
  for (const { xs, ys } of batches(examples, { batchSize: examples.length })) {
    return tf.tidy(() => {
      const { grads } = tf.variableGrads(
        () => crossEntropy.compute(model.apply(xs, { training: true }) as tf.Tensor, ys).loss,
        attachment.params.map(({ value }) => value),
      );
      return Object.fromEntries(attachment.params.map(({ name, value }) => [name, grads[value.name] as tf.Tensor]));
    });
  }
  throw new Error('a rank needs an example');
}

/** What one rank does; returns its weights at the end. For tests only. */
export async function handTrain(communicator: Communicator, run: HandRun): Promise<number[]> {
  const { rank } = communicator;
  const { parts, data = toyImages() } = run;
  const batch = sum(parts);
  const model = (run.model ?? toyModel)();
  const attachment = attach(model, ...(run.methods?.() ?? []));
  const links = openChain('handTrain', run.links(), { ...attachment.context, communicator });
  await links.prepare();
  const first = sum(parts.slice(0, rank));
  const own = parts[rank] as number;
  for (let step = 0; step < run.steps; step++) {
    const opened = attachment.begin(clockAt(step, run.steps), { seed: 3, rank, logits: true });
    const scope: Scope = { ...opened, share: own / batch };
    const start = (step * batch) % (data.length - batch + 1);
    const gradients = gradientsOf(model, attachment, slice(data, start + first, start + first + own));
    await links.applyAsync(new Map(Object.entries(gradients)), scope);
    run.after?.(rank, step, model);
  }
  run.end?.(attachment);
  const weights = weightsOf(model);
  links.dispose();
  attachment.detach();
  model.dispose();
  return weights;
}
