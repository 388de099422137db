import type * as tf from '@tensorflow/tfjs';
import type { Dataset } from '../data.js';
import { FrugalError } from '../errors.js';
import type { TrainOptions } from '../run.js';
import { train } from '../train.js';

/** Trains up to the end, or stops by a signal after so many steps of its own, which is no error here. */
export async function trainFor(
  steps: number,
  model: tf.LayersModel,
  data: Dataset,
  options: Omit<TrainOptions, 'signal' | 'progress'>,
): Promise<void> {
  const stop = new AbortController();
  let made = 0;
  const progress: TrainOptions['progress'] = ({ kind }) => {
    if (kind === 'step' && ++made === steps) stop.abort();
  };
  try {
    await train(model, data, { ...options, signal: stop.signal, progress });
  } catch (error) {
    if (!FrugalError.is(error, 'ABORTED')) throw error;
  }
}
