import * as tf from '@tensorflow/tfjs';
import type { Attachment } from './attach.js';
import { type Chain, chain } from './chain.js';
import { FrugalError } from './errors.js';
import { clockAt } from './schedule.js';
import type { Transform } from './transform.js';

/** What `model.fit` does not tell an optimizer. */
export interface FitOptions {
  /** Optimizer steps of the whole run; needed by schedules that end. */
  readonly totalSteps?: number;
  /** Seed of the random streams. Default 0. */
  readonly seed?: number;
}

type Gradients = tf.NamedTensorMap | { name: string; tensor: tf.Tensor }[];

/** Runs a chain under `model.fit`. TensorFlow.js keeps optimizer state by position; ours is by name. */
class ChainOptimizer extends tf.Optimizer {
  static readonly className = 'FrugalChain';
  private step = 0;

  constructor(
    private readonly attachment: Attachment,
    private readonly links: Chain,
    private readonly options: FitOptions,
  ) {
    super();
    this.open();
  }

  /** Opens the scope of the next step: forward passes before `applyGradients` belong to it. */
  private open(): void {
    this.attachment.begin(clockAt(this.step, this.options.totalSteps), { seed: this.options.seed ?? 0 });
  }

  override applyGradients(gradients: Gradients): void {
    const entries = Array.isArray(gradients)
      ? gradients.map(({ name, tensor }) => [name, tensor] as const)
      : Object.entries(gradients);
    const byVariable = new Map(entries);
    const { params } = this.attachment;
    this.links.init(params);
    const unknown = [...byVariable.keys()].find((name) => !params.some(({ value }) => value.name === name));
    if (unknown !== undefined) {
      throw new FrugalError(
        'CONFIG',
        `The weight ${unknown} was not trainable when the model was attached. Detach, and attach it again.`,
      );
    }
    // fit hands gradients over by variable; those of frozen weights are missing.
    const updates = new Map<string, tf.Tensor>();
    for (const { name, value } of params) {
      const gradient = byVariable.get(value.name);
      if (gradient) updates.set(name, gradient);
    }
    this.links.apply(updates, params, this.attachment.scope);
    this.step++;
    this.incrementIterations();
    this.open();
  }

  override getConfig(): tf.serialization.ConfigDict {
    return {};
  }

  override dispose(): void {
    this.links.dispose();
  }
}

/**
 * The optimizer that `attachment.optimizer` returns.
 *
 * @throws {@link FrugalError} `CONFIG` for exchange links and whole-step methods, which `fit` cannot await
 */
export function chainOptimizer(
  attachment: Attachment,
  links: readonly Transform[],
  options: FitOptions = {},
): tf.Optimizer {
  const whole = attachment.methods.find((method) => method.step !== undefined);
  const all = chain(links);
  if (whole) {
    throw new FrugalError(
      'CONFIG',
      `${whole.name} replaces the whole training step, which model.fit cannot host. Use train(model, data, { methods: [${whole.name}(…)] }).`,
    );
  }
  const probe = attachment.methods.flatMap((method) => method.probes ?? [])[0];
  if (probe) {
    throw new FrugalError(
      'CONFIG',
      `${probe.name} makes further passes over each batch, which model.fit cannot host. Use train(model, data, { methods: […] }).`,
    );
  }
  if (all.exchange !== undefined) {
    throw new FrugalError(
      'CONFIG',
      `${all.exchange} exchanges tensors with other ranks and must be awaited, but model.fit runs its step synchronously. Use train(model, data, { optimizer: […] }).`,
    );
  }
  return new ChainOptimizer(attachment, all, options);
}
