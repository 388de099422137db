import * as tf from '@tensorflow/tfjs';
import type { Attachment } from './attach.js';
import { type Chain, openChain } from './chain.js';
import { checkInteger, checkOptions } from './check.js';
import { FrugalError } from './errors.js';
import type { Link } from './link.js';
import { linksOf } from './links.js';
import type { Opened } from './opened.js';
import { clockAt } from './schedule.js';
import { settle } from './settled.js';

/** What `model.fit` does not tell an optimizer. */
export interface FitOptions {
  /** Optimizer steps of the whole run; needed by schedules that end. */
  readonly totalSteps?: number;
  /** Seed of the random streams. Default 0. */
  readonly seed?: number;
  /**
   * Batches whose mean gradient makes one step: as a batch of so many times the size, with the memory of one. A rest at the end
   * of `fit` waits for the next call. Default 1.
   */
  readonly accumulate?: number;
}

/** An optimizer for `model.compile` that runs a chain. */
export interface ChainOptimizer extends tf.Optimizer {
  /** Loads what links must await: call it before `fit` where one says so. */
  prepare(): Promise<void>;
  /** Gives the model what links behind the update have for it, as an average of its weights: call it after the last `fit`. */
  finish(): void;
}

type Gradients = tf.NamedTensorMap | { name: string; tensor: tf.Tensor }[];

/** Sums of gradients over the batches of a step. */
function gradientSums() {
  const sums = new Map<string, tf.Tensor>();
  return {
    add(gradients: ReadonlyMap<string, tf.Tensor>): void {
      for (const [name, gradient] of gradients) {
        const before = sums.get(name);
        sums.set(name, tf.keep(before ? tf.add(before, gradient) : gradient.clone()));
        before?.dispose();
      }
    },
    mean: (count: number): Map<string, tf.Tensor> =>
      new Map([...sums].map(([name, sum]) => [name, tf.div(sum, count)])),
    clear(): void {
      for (const sum of sums.values()) sum.dispose();
      sums.clear();
    },
  };
}

/** Runs a chain under `model.fit`. TensorFlow.js keeps optimizer state by position; ours is by name. */
class FitOptimizer extends tf.Optimizer implements ChainOptimizer {
  static readonly className = 'FrugalChain';
  private step = 0;
  private part = 0;
  private prepared: boolean;
  private readonly sums = gradientSums();

  constructor(
    private readonly attachment: Attachment,
    private readonly chain: Chain,
    private readonly options: Required<Pick<FitOptions, 'seed' | 'accumulate'>> & FitOptions,
  ) {
    super();
    this.prepared = this.needs === undefined;
    this.open();
  }

  /** Who must be prepared. */
  private get needs(): string | undefined {
    const preparing = ([, { prepare }]: readonly [{ name: string }, Opened]): boolean => prepare !== undefined;
    return this.chain.prepares ?? [...this.attachment.opened.methods].find(preparing)?.[0].name;
  }

  async prepare(): Promise<void> {
    await this.attachment.opened.prepare();
    await this.chain.prepare();
    this.prepared = true;
  }

  finish(): void {
    settle(this.attachment.context, this.chain.settled());
  }

  /** Opens a step without anything of one before: forward passes before `applyGradients` belong to it. */
  private open(): void {
    const { seed, accumulate, totalSteps } = this.options;
    this.sums.clear();
    this.part = 0;
    this.attachment.begin(clockAt(this.step, totalSteps), { seed, lossScale: 1 / accumulate });
  }

  /** Gradients by weight name. `fit` hands them over by variable; those of frozen weights are missing. */
  private named(gradients: Gradients): Map<string, tf.Tensor> {
    const entries = Array.isArray(gradients)
      ? gradients.map(({ name, tensor }) => [name, tensor] as const)
      : Object.entries(gradients);
    const byVariable = new Map(entries);
    const { params } = this.attachment;
    const unknown = [...byVariable.keys()].find((name) => !params.some(({ value }) => value.name === name));
    if (unknown !== undefined) {
      throw new FrugalError(
        'CONFIG',
        `The weight ${unknown} was not trainable when the model was attached. Detach, and attach it again.`,
      );
    }
    return new Map(
      params.flatMap(({ name, value }) => {
        const gradient = byVariable.get(value.name);
        return gradient ? [[name, gradient] as const] : [];
      }),
    );
  }

  override applyGradients(gradients: Gradients): void {
    try {
      this.addPart(gradients);
    } catch (error) {
      // What the passes of this step have left is not the next one's.
      this.open();
      throw error;
    }
  }

  private addPart(gradients: Gradients): void {
    if (!this.prepared) {
      throw new FrugalError(
        'CONFIG',
        `${this.needs} must load something before its first step, which model.fit cannot await. Keep the optimizer and await optimizer.prepare() before fit.`,
      );
    }
    const { accumulate } = this.options;
    const named = this.named(gradients);
    if (accumulate > 1) this.sums.add(named);
    this.part++;
    if (this.part < accumulate) return void this.attachment.nextPart(this.part);
    tf.tidy(() => this.chain.apply(accumulate > 1 ? this.sums.mean(accumulate) : named, this.attachment.scope));
    this.step++;
    this.incrementIterations();
    this.open();
  }

  override getConfig(): tf.serialization.ConfigDict {
    return {};
  }

  override dispose(): void {
    this.sums.clear();
    this.chain.dispose();
  }
}

const refuse = (message: string): never => {
  throw new FrugalError('CONFIG', message);
};

/** Refuses what `fit` cannot await or host. */
function checkHosted({ opened }: Attachment, chain: Chain): void {
  for (const [{ name }, { step, probes = [] }] of opened.methods) {
    if (step)
      refuse(
        `${name} replaces the whole training step, which model.fit cannot host. Use train(model, data, { methods: [${name}(…)] }).`,
      );
    const [probe] = probes;
    if (probe)
      refuse(
        `${probe.name} makes further passes over each batch, which model.fit cannot host. Use train(model, data, { methods: […] }).`,
      );
  }
  if (chain.exchange !== undefined)
    refuse(
      `${chain.exchange} exchanges tensors with other ranks and must be awaited, but model.fit runs its step synchronously. Use train(model, data, { optimizer: […] }).`,
    );
}

/**
 * The optimizer that `attachment.optimizer` returns.
 *
 * @throws {@link FrugalError} `CONFIG` for links that make no chain, and for what `fit` cannot await: exchange links, whole-step
 * methods, probes
 */
export function chainOptimizer(
  attachment: Attachment,
  given: readonly Link[],
  options: FitOptions = {},
): ChainOptimizer {
  checkOptions('optimizer', options, ['totalSteps', 'seed', 'accumulate']);
  const accumulate = checkInteger('optimizer', 'accumulate', options.accumulate ?? 1, { min: 1 });
  const chain = openChain('optimizer', linksOf(attachment.methods, given), attachment.context);
  try {
    checkHosted(attachment, chain);
  } catch (error) {
    chain.dispose();
    throw error;
  }
  attachment.opened.setRates(chain.rateOf);
  return new FitOptimizer(attachment, chain, { ...options, seed: options.seed ?? 0, accumulate });
}
