import * as tf from '@tensorflow/tfjs';
import { FrugalError } from './errors.js';
import type { Passes } from './probe.js';
import type { Run, TrainOptions } from './run.js';
import type { Scope } from './scope.js';
import type { Batch, StepReport } from './step.js';
import type { Communicator } from './communicator.js';

/** What a step needs of a run. */
export interface StepContext extends Pick<Run, 'model' | 'attachment' | 'links' | 'loss' | 'title'> {
  readonly options: Pick<TrainOptions, 'checkpoint' | 'communicator'>;
}

interface Forward {
  readonly gradients: Map<string, tf.Tensor>;
  readonly report: StepReport;
}

/** The loss with the penalties of kernel and bias regularisers, as fit adds them. */
function penalised(model: tf.LayersModel, loss: tf.Scalar): tf.Scalar {
  return model.calculateLosses().reduce<tf.Scalar>((sum, penalty) => tf.add(sum, penalty), loss);
}

/** Forward and backward pass. Checks the loss before any weight moves. */
function backpropagate(run: StepContext, batch: Batch, step: number): Forward {
  const { model, attachment, loss } = run;
  let correct: number | undefined;
  const variables = attachment.params.map(({ value }) => value);
  const { value, grads } = tf.variableGrads(() => {
    const outputs = model.apply(batch.xs, { training: true }) as tf.Tensor;
    const result = loss.compute(outputs, batch.ys);
    // Read here: the tape's own tidy disposes it with the other intermediates.
    correct = result.correct?.dataSync()[0];
    return penalised(model, result.loss);
  }, variables);
  const number = value.dataSync()[0] as number;
  if (!Number.isFinite(number)) throw nonFinite(run, step, number);
  const report = { loss: number, ...(correct !== undefined && { correct }) };
  const gradients = new Map(
    attachment.params.flatMap(({ name, value: w }) => {
      const gradient = grads[w.name];
      return gradient ? [[name, gradient] as const] : [];
    }),
  );
  return { gradients, report };
}

const nonFiniteWeight = (run: StepContext): string | undefined =>
  run.attachment.params.find(({ value }) => !value.dataSync().every(Number.isFinite))?.name;

/** After the last update there is no loss to tell that it diverged: looks at the weights. Throws `NON_FINITE`. */
export function checkFinite(run: StepContext, step: number): void {
  const culprit = nonFiniteWeight(run);
  if (culprit === undefined) return;
  throw new FrugalError(
    'NON_FINITE',
    `${run.title}: after the last step, ${step - 1}, the weight ${culprit} is not finite. Lower the learning rate, or clip the gradient.`,
  );
}

function nonFinite(run: StepContext, step: number, loss: number): FrugalError {
  const culprit = nonFiniteWeight(run);
  const where = culprit === undefined ? 'all weights are still finite' : `the first non-finite weight is ${culprit}`;
  const kept = run.options.checkpoint ? `The last checkpoint in ${run.options.checkpoint.folder} is kept. ` : '';
  return new FrugalError(
    'NON_FINITE',
    `${run.title}: the loss is ${loss} at step ${step}; ${where}. ${kept}Lower the learning rate, or clip the gradient.`,
  );
}

/** One step by back-propagation, without exchange: everything inside one tidy. */
function localStep(run: StepContext, batch: Batch, scope: Scope): StepReport {
  let report: StepReport = { loss: Number.NaN };
  tf.tidy(() => {
    const forward = backpropagate(run, batch, scope.clock.step);
    run.links.apply(forward.gradients, run.attachment.params, scope);
    report = forward.report;
  });
  return report;
}

/** One step by back-propagation whose updates are awaited from other ranks. */
async function exchangeStep(
  run: StepContext,
  batch: Batch,
  scope: Scope,
  communicator: Communicator,
): Promise<StepReport> {
  let report: StepReport = { loss: Number.NaN };
  const gradients = tf.tidy(() => {
    const forward = backpropagate(run, batch, scope.clock.step);
    report = forward.report;
    return Object.fromEntries(forward.gradients);
  });
  await run.links.applyAsync(new Map(Object.entries(gradients)), run.attachment.params, scope, communicator);
  return report;
}

/** Runs `pass`, after which the weights that are not trained are what they were. */
function keepStatistics({ model, attachment }: StepContext, pass: () => number): number {
  const copies = model.nonTrainableWeights.map((weight) => {
    const variable = weight.read() as tf.Variable;
    return [variable, variable.clone()] as const;
  });
  attachment.rewind();
  try {
    return tf.tidy(pass);
  } finally {
    attachment.rewind();
    for (const [variable, copy] of copies) {
      variable.assign(copy);
      copy.dispose();
    }
  }
}

/** A copy that the tape does not know: no gradient flows through what is made of it. */
const constantOf = (tensor: tf.Tensor): tf.Tensor => tf.tensor(tensor.dataSync(), tensor.shape, tensor.dtype);

/** The further passes that probes may make over a batch. */
function passesOf(run: StepContext, { xs, ys }: Batch): Passes {
  const { model, attachment, loss } = run;
  const outputs = (): tf.Tensor => model.apply(xs, { training: true }) as tf.Tensor;
  return {
    loss,
    evaluate: () =>
      keepStatistics(run, () => penalised(model, loss.compute(outputs(), ys).loss).dataSync()[0] as number),
    backward: (targets) => {
      keepStatistics(run, () => {
        const variables = attachment.params.map(({ value }) => value);
        const of = (): tf.Scalar => {
          const given = outputs();
          return loss.compute(given, targets(constantOf(given))).loss;
        };
        return tf.variableGrads(of, variables).value.dataSync()[0] as number;
      });
    },
  };
}

/** One step with the passes of probes around it. */
export async function oneStep(run: StepContext, batch: Batch, scope: Scope): Promise<StepReport> {
  const probes = run.attachment.methods.flatMap((method) => method.probes ?? []);
  if (probes.length === 0) return bareStep(run, batch, scope);
  const passes = passesOf(run, batch);
  for (const probe of probes) probe.before?.(passes, scope);
  const report = await bareStep(run, batch, scope);
  for (const probe of probes) probe.after?.(passes, scope);
  return report;
}

/** One step of a run: the method that replaces the whole step if there is one, or back-propagation. */
async function bareStep(run: StepContext, batch: Batch, scope: Scope): Promise<StepReport> {
  const { communicator } = run.options;
  const whole = run.attachment.methods.find((method) => method.step)?.step;
  if (whole) return whole.step(batch, run.attachment.params, scope, communicator);
  if (run.links.exchange !== undefined && communicator) return exchangeStep(run, batch, scope, communicator);
  return localStep(run, batch, scope);
}
