import * as tf from '@tensorflow/tfjs';
import type { Attachment } from './attach.js';
import type { Loss } from './loss.js';
import type { Pass, PassOptions, Step } from './pass.js';
import type { Scope } from './scope.js';
import type { Batch } from './step.js';

/** What a pass needs of a run. */
export interface PassContext {
  readonly model: tf.LayersModel;
  readonly attachment: Attachment;
  readonly loss: Loss;
}

/** The loss with the penalties of kernel and bias regularisers, as fit adds them. */
export function penalised(model: tf.LayersModel, loss: tf.Scalar): tf.Scalar {
  return model.calculateLosses().reduce<tf.Scalar>((sum, penalty) => tf.add(sum, penalty), loss);
}

/** Runs `body`, after which the weights that gradients do not move are what they were. */
function keepStatistics<T>({ attachment }: PassContext, body: () => T): T {
  const copies = attachment.context.statistics.map(({ value }) => [value, value.clone()] as const);
  try {
    return body();
  } finally {
    for (const [value, copy] of copies) {
      value.assign(copy);
      copy.dispose();
    }
  }
}

/** The same values as a tensor that the tape does not know: no gradient flows through what is made of it. */
function constantOf(tensor: tf.Tensor): tf.Tensor {
  const identity = tf.getKernel('Identity', tf.getBackend());
  // Run by the engine, it would be an operation of the tape.
  const info = identity.kernelFunc({ inputs: { x: tensor }, backend: tf.backend() }) as tf.TensorInfo;
  return tf.engine().makeTensorFromTensorInfo(info);
}

function cut({ xs, ys, ...rest }: Batch, [from, to]: readonly [number, number]): Batch {
  return { ...rest, xs: tf.slice(xs, from, to - from), ys: tf.slice(ys, from, to - from) };
}

function openPass(run: PassContext, ofStep: Batch, options: PassOptions): Pass {
  const { model, attachment, loss } = run;
  const { rules = 'on', targets, examples, observers = [], batch = ofStep } = options;
  const look = <T extends tf.TensorContainer>(body: (given: Batch) => T): T =>
    keepStatistics(run, () =>
      attachment.look({ rules, observers }, () => tf.tidy(() => body(examples ? cut(batch, examples) : batch))),
    );
  const outputsOf = ({ xs }: Batch): tf.Tensor => model.apply(xs, { training: true }) as tf.Tensor;
  const lossOf = (given: Batch): tf.Scalar => {
    const outputs = outputsOf(given);
    if (targets) return loss.compute(outputs, targets(constantOf(outputs))).loss;
    return penalised(model, loss.compute(outputs, given.ys).loss);
  };
  return {
    outputs: () => look(outputsOf),
    loss: () => look(lossOf),
    gradients() {
      const { params } = attachment;
      const { value, ...named } = look((given) => {
        const variables = params.map((param) => param.value);
        const { value: of, grads } = tf.variableGrads(() => lossOf(given), variables);
        return { ...grads, value: of } as { value: tf.Scalar; [name: string]: tf.Tensor };
      });
      const gradients = new Map(
        params.flatMap((param) => {
          const gradient = named[param.value.name];
          return gradient ? [[param.name, gradient] as const] : [];
        }),
      );
      return { loss: value, gradients };
    },
  };
}

/** A step as probes and whole-step methods see it. */
export function stepOf(run: PassContext, batch: Batch, scope: Scope): Step {
  return { batch, scope, loss: run.loss, pass: (options = {}) => openPass(run, batch, options) };
}
