import {
  type Batch,
  type Communicator,
  FrugalError,
  type LinearAlgebra,
  linearAlgebra,
  openScope,
  type RunContext,
  type Schedule,
  type Scope,
  type Step,
  type StepReport,
  unprepared,
  type WholeStep,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { correct, correlationRatio, meanOf, meanSquare, spreadOf } from './diagnosis.js';
import { type ForwardPlan, planForward, predictions } from './forward.js';
import { type Members, openMembers, useStacked } from './members.js';
import { type EnsembleMethod, type EnsembleOptions, type EnsembleReport, type Settings, settle } from './options.js';
import { checksum, gatherPredictions, shareOf } from './ranks.js';
import { analyse } from './solve.js';
import { type Start, startOf } from './start.js';

/** α of a step; throws when the step does not fit the method. */
export type Alpha = (batch: Batch, scope: Scope) => number;

/** What tells one ensemble method from another. */
export interface Recipe {
  readonly name: string;
  readonly source: string;
  /** Opens α for one run. */
  openAlpha(): Alpha;
  /** λ of Nesterov's momentum. */
  readonly momentum?: Schedule | undefined;
}

/** Fewest outputs by which correlation is judged. */
const DIAGNOSED = 16;
/**
 * Below this, (J − 1)·ρ² is taken for sampling noise: measured on 100 outputs 0.6 to 1.2 without correlation, above 1.8
 * with it.
 */
const SPURIOUS = 1.5;

type Account = { -readonly [K in keyof Omit<EnsembleReport, 'predict'>]: EnsembleReport[K] } & {
  spread: number[];
  warnings: string[];
};

/** Mean and standard deviation over members of predictions [J, N], as tensors of this shape. */
function summarise(values: Float64Array, count: number, shape: readonly number[]) {
  const n = values.length / count;
  const mean = meanOf(values, count);
  const square = meanOf(
    values.map((value, index) => (value - (mean[index % n] as number)) ** 2),
    count,
  );
  const deviation = square.map((value) => Math.sqrt((value * count) / (count - 1)));
  const tensor = (data: Float64Array): tf.Tensor => tf.tensor(Float32Array.from(data), [...shape]);
  return { mean: tensor(mean), standardDeviation: tensor(deviation) };
}

/** What one run of a method has. */
class Assimilation implements WholeStep {
  private account: Account;
  private readonly name: string;
  private readonly members: Members;
  private readonly plan: ForwardPlan;
  private readonly alpha: Alpha;
  private readonly ranks: Communicator;
  private algebra: LinearAlgebra | undefined;

  constructor(
    private readonly recipe: Recipe,
    private readonly options: EnsembleOptions,
    private readonly settings: Settings,
    { model, params, communicator }: RunContext,
  ) {
    this.name = recipe.name;
    this.plan = planForward(model, params);
    this.members = openMembers(recipe.name, settings.count, recipe.momentum !== undefined, params);
    this.alpha = recipe.openAlpha();
    this.ranks = communicator;
    this.account = this.fresh();
  }

  async prepare(): Promise<void> {
    this.algebra ??= await linearAlgebra();
  }

  private fresh(): Account {
    const members = this.settings.count;
    const none = { forward: undefined, kept: 1, analyses: 0, forwardPasses: 0, forwardPassesHere: 0 };
    return { members, parameters: 0, ...none, spread: [], warnings: [] };
  }

  /** Draws the first ensemble at step 0. The scope is one that all ranks share. */
  private begin(scope: Scope): void {
    const { plan } = this;
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

  /** Predictions [to − from, N] of some members, by default of all. */
  private run(xs: tf.Tensor, start: Start, [from, to]: readonly [number, number]): Float64Array {
    const { count, logits } = this.settings;
    if (from === to) return new Float64Array(0);
    const part = (w: tf.Tensor): tf.Tensor => w.slice([from], [to - from]);
    return this.members.use(
      (stacked) => {
        const own = to - from === count ? stacked : tf.tidy(() => stacked.map(part));
        const { values } = predictions(this.plan, xs, own, logits);
        if (own !== stacked) tf.dispose(own as tf.Tensor[]);
        return values;
      },
      start.moved ? (start.tried ?? start.members) : undefined,
    );
  }

  /** Predictions D [J, N] of all members, on every rank. */
  private async predict(batch: Batch, start: Start): Promise<Float64Array> {
    const { count } = this.settings;
    const { ranks } = this;
    const share = shareOf(count, ranks);
    this.account.forwardPassesHere += (batch.xs.shape[0] as number) * (share[1] - share[0]);
    const own = this.run(batch.xs, start, share);
    if (ranks.size === 1) return own;
    const seen = checksum(batch.xs.dataSync<'float32'>(), batch.ys.dataSync<'float32'>());
    const ensemble = this.account.analyses === 0 ? checksum(start.members) : 0;
    return gatherPredictions(this.name, ranks, own, { members: count, batch: seen, ensemble });
  }

  async step({ batch, scope: own }: Step): Promise<StepReport> {
    // Every rank makes the same analysis, so all take the random numbers of rank 0.
    const scope = openScope(own.clock, own.seed);
    const alpha = this.alpha(batch, scope);
    const { count, variance } = this.settings;
    this.begin(scope);
    const moves = { count, dropout: this.settings.dropout, momentum: this.recipe.momentum };
    const start = startOf(this.members, moves, scope, scope.random(this.name, 'dropout'));
    const before = await this.predict(batch, start);
    this.check(before, batch.ys, scope.clock.step);
    if (scope.clock.step === 0) this.diagnose(start.tried ?? start.members, before);
    const targets = Float64Array.from(batch.ys.dataSync());
    const mean = meanOf(before, count);
    const { members: m, tried } = start;
    const { inflation, localisation } = this.options;
    const random = scope.random(this.name, 'noise');
    const given = { count, members: m, tried, predictions: before, observations: targets, variance };
    const done = await analyse(given, {
      alpha,
      random,
      inflation,
      localisation,
      algebra: this.algebra ?? unprepared(this.name),
    });
    this.members.write(m);
    const rows = batch.xs.shape[0] as number;
    const account = this.account;
    Object.assign(account, done);
    account.analyses++;
    account.forwardPasses += rows * count;
    account.spread.push(spreadOf(m, count));
    return { loss: meanSquare(mean, targets), ...correct(mean, targets, rows) };
  }

  /** Before the first step the Variables are zeros, which are no ensemble. */
  private checkDrawn(arrays: readonly Float32Array[]): void {
    if (arrays.some((array) => array.some((value) => value !== 0))) return;
    throw new FrugalError('CONFIG', `${this.name}: there is no ensemble yet. Make a step before predict.`);
  }

  /** What was done so far, with a copy of the ensemble. */
  report(): EnsembleReport {
    const { members, plan, account } = this;
    const { count } = this.settings;
    const copy = members.copy();
    return {
      ...account,
      spread: [...account.spread],
      warnings: [...account.warnings],
      predict: (xs) => {
        this.checkDrawn(copy);
        const { values, shape } = useStacked(members.params, count, copy, (stacked) => predictions(plan, xs, stacked));
        return summarise(values, count, shape);
      },
    };
  }

  state(): Map<string, tf.Variable> {
    return this.members.state();
  }

  dispose(): void {
    this.members.dispose();
  }
}

/** Makes an {@link EnsembleMethod} of a recipe. */
export function ensembleMethod(recipe: Recipe, options: EnsembleOptions): EnsembleMethod {
  const settings = settle(recipe.name, options);
  return {
    name: recipe.name,
    source: recipe.source,
    open(context) {
      const step = new Assimilation(recipe, options, settings, context);
      return {
        step,
        prepare: () => step.prepare(),
        state: () => step.state(),
        report: () => step.report(),
        dispose: () => step.dispose(),
      };
    },
  };
}
