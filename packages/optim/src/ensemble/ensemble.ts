import { type Batch, checkChoice, checkInteger, checkNumber, FrugalError, type Method, type Scope } from '@frugal/core';
import type { StepMethod, StepReport } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { correct, correlationRatio, meanOf, meanSquare, spreadOf } from './diagnosis.js';
import { type ForwardPlan, planForward, predictions } from './forward.js';
import { makeMembers, type Members, type Prior } from './members.js';
import { analyse, checkInflation, checkLocalisation, type Inflation, type Localisation } from './solve.js';

/** Options that {@link enkf} and {@link esmda} share. */
export interface EnsembleOptions {
  /** The model that is trained: one input, one output. Seam 4 hands a method weights, not a forward pass. */
  readonly model: tf.LayersModel;
  /** J ≥ 2. Default 100. Should exceed the number of parameters where memory allows. */
  readonly members?: number;
  /**
   * Standard deviation √R of the observation error, above 0: one number, or one per output. It acts as the learning
   * rate: too small, and the ensemble collapses. For classes 0.3 to 1.
   */
  readonly observationNoise: number | readonly number[];
  /** s > 0, the spread of the first ensemble. Default 0.3. */
  readonly spread?: number;
  /**
   * `centre` (default): m_j = m_c + s·N(0, 1), m_c the model's weights. `iid`: s·N(0, 1), which for odd activations has
   * no correlation between weights and outputs to learn from.
   */
  readonly prior?: 'centre' | 'iid';
  /**
   * What is compared with the targets. `outputs` (default): what the model gives, probabilities if it ends in softmax.
   * `logits`: what stands before a final softmax, regressed on one-hot targets.
   */
  readonly observe?: 'outputs' | 'logits';
  /** Widens the ensemble after each analysis. Default: not. */
  readonly inflation?: Inflation;
  /** Drops spurious entries of the gain. Default: not; for small batches and models only. */
  readonly localisation?: Localisation;
  /** Receives warnings. Default: standard error. */
  readonly log?: (line: string) => void;
}

/** Names of {@link EnsembleOptions}. */
export const ENSEMBLE_OPTIONS = [
  'model',
  'members',
  'observationNoise',
  'spread',
  'prior',
  'observe',
  'inflation',
  'localisation',
  'log',
] as const;

/** What an ensemble method has done in its last run. */
export interface EnsembleReport {
  /** J. */
  readonly members: number;
  /** P, trainable numbers of one member. */
  readonly parameters: number;
  /** How members were run: all at once, or one by one; undefined before the first step. */
  readonly forward: 'batched' | 'loop' | undefined;
  /** Why they were run one by one. */
  readonly forwardReason?: string;
  /** The system that the last analysis solved. */
  readonly form?: 'ensemble' | 'observation';
  /** Share of the last gain that localisation kept. */
  readonly kept: number;
  /** Analyses done. */
  readonly analyses: number;
  /** Forward passes of single examples, over all members: what to compare with gradient descent. */
  readonly forwardPasses: number;
  /** Mean standard deviation of a parameter over members: of the first ensemble, then after each analysis. */
  readonly spread: readonly number[];
  /**
   * (J − 1)·ρ² of a typical parameter with the outputs of the first batch; about 1 or less if there is only sampling
   * noise.
   */
  readonly correlationRatio?: number;
  /** What was warned of. */
  readonly warnings: readonly string[];
}

/** A method that trains an ensemble, and can predict by it. */
export interface EnsembleMethod extends Method {
  /** Seam 4. `dispose` forgets the ensemble. */
  readonly step: StepMethod;
  /**
   * Mean and standard deviation [B, …] of the members' outputs; both belong to the caller. The mean of predictions is
   * better than the prediction of the mean weights, which is what the model holds after training.
   */
  predict(xs: tf.Tensor): { mean: tf.Tensor; standardDeviation: tf.Tensor };
  /** What the last run did. */
  report(): EnsembleReport;
}

/** What tells one ensemble method from another. */
export interface Recipe {
  readonly name: string;
  readonly source: string;
  /** α of this step; throws when the step does not fit the method. */
  alpha(batch: Batch, scope: Scope): number;
}

interface Settings extends Prior {
  readonly count: number;
  readonly variance: readonly number[];
  readonly logits: boolean;
  readonly log: (line: string) => void;
}

function settle(owner: string, options: EnsembleOptions): Settings {
  const noise = [options.observationNoise].flat();
  if (!(options.model instanceof tf.LayersModel)) {
    throw new FrugalError('CONFIG', `${owner}: expected model to be the tf.LayersModel that is trained.`);
  }
  if (noise.length === 0) throw new FrugalError('CONFIG', `${owner}: expected observationNoise but received none.`);
  const count = checkInteger(owner, 'members', options.members ?? 100, { min: 2 });
  checkInflation(owner, options.inflation);
  if (options.localisation) checkLocalisation(owner, options.localisation, count);
  return {
    count,
    variance: noise.map((std) => checkNumber(owner, 'observationNoise', std, { min: 0, aboveMin: true }) ** 2),
    spread: checkNumber(owner, 'spread', options.spread ?? 0.3, { min: 0, aboveMin: true }),
    kind: checkChoice(owner, 'prior', options.prior ?? 'centre', ['centre', 'iid']),
    logits: checkChoice(owner, 'observe', options.observe ?? 'outputs', ['outputs', 'logits']) === 'logits',
    log: options.log ?? ((line) => process.stderr.write(`${line}\n`)),
  };
}

/** Fewest outputs by which correlation is judged. */
const DIAGNOSED = 16;
/**
 * Below this, (J − 1)·ρ² is taken for sampling noise: measured on 100 outputs 0.6 to 1.2 without correlation, above 1.8
 * with it.
 */
const SPURIOUS = 1.5;

type Account = { -readonly [K in keyof EnsembleReport]: EnsembleReport[K] } & { spread: number[]; warnings: string[] };

/** The step that both methods make. */
class Assimilation implements StepMethod {
  account: Account;
  readonly name: string;
  private readonly settings: Settings;
  readonly members: Members;

  constructor(
    private readonly recipe: Recipe,
    private readonly options: EnsembleOptions,
  ) {
    this.name = recipe.name;
    this.settings = settle(recipe.name, options);
    this.members = makeMembers(recipe.name, this.settings.count);
    this.account = this.fresh();
  }

  private fresh(): Account {
    const members = this.settings.count;
    const none = { forward: undefined, kept: 1, analyses: 0, forwardPasses: 0 };
    return { members, parameters: 0, ...none, spread: [], warnings: [] };
  }

  plan(): ForwardPlan {
    return planForward(this.options.model, this.members.params());
  }

  private begin(plan: ForwardPlan, scope: Scope): void {
    if (scope.clock.step === 0) {
      this.members.draw(this.settings, scope.random(this.name, 'prior'));
      this.account = this.fresh();
    }
    const m = this.members.read();
    if (m.every((value) => value === 0)) {
      throw new FrugalError(
        'CONFIG',
        `${this.name}: there is no ensemble at step ${scope.clock.step}. Begin at step 0.`,
      );
    }
    this.account.parameters = m.length / this.settings.count;
    this.account.forward = plan.mode;
    if (plan.reason !== undefined) this.account.forwardReason = plan.reason;
    if (this.account.spread.length === 0) this.account.spread.push(spreadOf(m, this.settings.count));
  }

  private check(observed: Float64Array, ys: tf.Tensor, step: number): void {
    if (observed.length !== ys.size * this.settings.count) {
      throw new FrugalError(
        'SHAPE',
        `${this.name}: expected targets for ${observed.length / this.settings.count} outputs but received [${ys.shape.join(', ')}].`,
      );
    }
    if (!observed.every(Number.isFinite)) {
      throw new FrugalError(
        'NON_FINITE',
        `${this.name}: a member's prediction is not finite at step ${step}; no analysis was made. Raise observationNoise, or lower spread.`,
      );
    }
  }

  /** Looks for correlation in the first ensemble. With a few outputs the statistic says little, so it is not judged. */
  private diagnose(m: Float64Array, d: Float64Array): void {
    const { count, kind, log } = this.settings;
    const ratio = correlationRatio(m, d, count);
    this.account.correlationRatio = ratio;
    const outputs = d.length / count;
    const few = outputs < DIAGNOSED;
    if (few ? kind === 'centre' : ratio >= SPURIOUS) return;
    const found = few
      ? `with an iid prior, parameters may have no correlation with outputs above sampling noise, and ${outputs} outputs in the first batch are too few to check it`
      : `the correlation of parameters with outputs is not above sampling noise ((J − 1)·ρ² is ${ratio.toFixed(2)} for a typical parameter), so the analysis has little to learn from`;
    const line = `${this.name}: ${found}. Use prior 'centre', or more members.`;
    this.account.warnings.push(line);
    log(line);
  }

  step(batch: Batch, _params: unknown, scope: Scope): Promise<StepReport> {
    const alpha = this.recipe.alpha(batch, scope);
    const { count, variance, logits } = this.settings;
    const plan = this.plan();
    this.begin(plan, scope);
    const m = this.members.read();
    const before = this.members.use((stacked) => predictions(plan, batch.xs, stacked, logits).values);
    this.check(before, batch.ys, scope.clock.step);
    if (scope.clock.step === 0) this.diagnose(m, before);
    const targets = Float64Array.from(batch.ys.dataSync());
    const mean = meanOf(before, count);
    const observed = { count, members: m, predictions: before, observations: targets, variance };
    const { inflation, localisation } = this.options;
    const random = scope.random(this.name, 'noise');
    const done = analyse(observed, { alpha, random, inflation, localisation });
    this.members.write(m);
    const rows = batch.xs.shape[0] as number;
    const account = this.account;
    Object.assign(account, done);
    account.analyses++;
    account.forwardPasses += rows * count;
    account.spread.push(spreadOf(m, count));
    return Promise.resolve({ loss: meanSquare(mean, targets), ...correct(mean, targets, rows) });
  }

  dispose(): void {
    this.members.dispose();
  }
}

/** Makes an {@link EnsembleMethod} of a recipe. */
export function ensembleMethod(recipe: Recipe, options: EnsembleOptions): EnsembleMethod {
  const step = new Assimilation(recipe, options);
  return {
    name: recipe.name,
    source: recipe.source,
    transforms: [step.members.link],
    step,
    predict(xs) {
      const plan = step.plan();
      const { values, shape } = step.members.use((stacked) => predictions(plan, xs, stacked));
      const count = step.account.members;
      const n = values.length / count;
      const mean = meanOf(values, count);
      const square = meanOf(
        values.map((value, index) => (value - (mean[index % n] as number)) ** 2),
        count,
      );
      const deviation = square.map((value) => Math.sqrt((value * count) / (count - 1)));
      const tensor = (data: Float64Array): tf.Tensor => tf.tensor(Float32Array.from(data), shape);
      return { mean: tensor(mean), standardDeviation: tensor(deviation) };
    },
    report: () => ({
      ...step.account,
      spread: [...step.account.spread],
      warnings: [...step.account.warnings],
    }),
  };
}
