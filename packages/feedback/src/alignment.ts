import {
  attach,
  type Batch,
  checkInteger,
  checkOptions,
  clockAt,
  crossEntropy,
  type Loss,
  type Method,
  type Observer,
  type Param,
  type Probe,
  type RunContext,
  type Site,
  type Step,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { cosineOf, degrees } from './feedback.js';

/** Options of {@link alignment}. */
export interface AlignmentOptions {
  /** Default: cross-entropy. */
  readonly loss?: Loss;
  /** Seed of the run: random feedback is drawn from it, and the masks of dropout. Default 0. */
  readonly seed?: number;
  /** Step whose streams and schedules are used. Default 0. */
  readonly step?: number;
}

/** How far a method's gradients at one site point with those of back-propagation. */
export interface Alignment {
  /** Name of the site. */
  readonly site: string;
  /** Cosine between the two dY, the gradients before the activation. */
  readonly signal: number;
  /** Cosine between the two dW. */
  readonly weight: number;
  /** Angle between the two dW, in degrees. */
  readonly angle: number;
}

/** dY and dW of each trained site, from the input on. */
type Found = ReadonlyMap<Site, { readonly dy: Float32Array; readonly dw: Float32Array }>;

/** With the rules of the methods, or exact. */
type Rules = 'on' | 'off';

/**
 * Reads dY and dW of each trained site from a backward pass.
 *
 * @param backward - runs it under the eyes of the observer, and gives its gradients by weight name
 */
function read(
  { sites, params }: Pick<RunContext, 'sites' | 'params'>,
  backward: (observer: Observer) => ReadonlyMap<string, tf.Tensor>,
): Found {
  const signals = new Map<Site, Float32Array>();
  const spy: Observer = {
    name: 'alignment',
    onBackward: ({ site }, _x, dy) => void signals.set(site, Float32Array.from(dy.dataSync())),
  };
  const found = new Map<Site, { dy: Float32Array; dw: Float32Array }>();
  const names = new Map(params.map(({ name, value }) => [value, name]));
  tf.tidy(() => {
    const gradients = backward(spy);
    for (const site of sites) {
      const [dy, dw] = [signals.get(site), gradients.get(names.get(site.kernel) ?? '')];
      if (dy && dw) found.set(site, { dy, dw: Float32Array.from(dw.dataSync()) });
    }
  });
  return found;
}

function compare(exact: Found, actual: Found): Alignment[] {
  return [...exact].map(([site, { dy, dw }]) => {
    const other = actual.get(site);
    const weight = other ? cosineOf(other.dw, dw) : 0;
    return { site: site.name, signal: other ? cosineOf(other.dy, dy) : 0, weight, angle: degrees(weight) };
  });
}

/** dW by weight name; tensors of the surrounding tidy. */
function gradientsOf(
  model: tf.LayersModel,
  params: readonly Param[],
  { xs, ys }: Batch,
  loss: Loss,
): Map<string, tf.Tensor> {
  const { grads } = tf.variableGrads(
    () => loss.compute(model.apply(xs, { training: true }) as tf.Tensor, ys).loss,
    params.map(({ value }) => value),
  );
  return new Map(
    params.flatMap(({ name, value }) => {
      const gradient = grads[value.name];
      return gradient ? [[name, gradient] as const] : [];
    }),
  );
}

/**
 * Compares the gradients of a method with those of back-propagation, at the same weights, batch and dropout masks:
 *   signal = cos(dY of the method, dY),   weight = cos(dW of the method, dW)
 * for each site, in order. Exact whatever lies between the sites: it runs both backward passes. Penalties of regularisers
 * take no part. The weights, moving averages included, are as before. It opens the method for a run of its own, so state
 * that the method gathers in its steps begins anew. Call it between runs: a model that is attached is refused. In a run
 * there is {@link alignmentMeter}. A method with `measureEvery` tells less: it compares its feedback with dY·Wᵀ of the dY
 * that feedback has made.
 *
 * @param model - a built model of one output
 * @param method - any method that replaces products
 * @param batch - inputs and targets, which stay the caller's
 * @throws FrugalError `CONFLICT` when the model is attached, `CONFIG`
 */
export function alignment(
  model: tf.LayersModel,
  method: Method,
  batch: Batch,
  options: AlignmentOptions = {},
): Alignment[] {
  checkOptions('alignment', options, ['loss', 'seed', 'step']);
  const { loss = crossEntropy, seed = 0 } = options;
  const step = checkInteger('alignment', 'step', options.step ?? 0, { min: 0 });
  const attachment = attach(model, method);
  const { context } = attachment;
  const before = context.statistics.map(({ value }) => tf.keep(value.clone()));
  const restore = (): void => context.statistics.forEach(({ value }, i) => value.assign(before[i] as tf.Tensor));
  const found = (rules: Rules): Found => {
    try {
      return read(context, (observer) =>
        attachment.look({ rules, observers: [observer] }, () => gradientsOf(model, context.params, batch, loss)),
      );
    } finally {
      restore();
    }
  };
  try {
    attachment.begin(clockAt(step), { seed, logits: loss.logits });
    return compare(found('off'), found('on'));
  } finally {
    tf.dispose(before);
    attachment.detach();
  }
}

/** Options of {@link alignmentMeter}. */
export interface AlignmentMeterOptions {
  /** Measure before every so many steps, the first one included. Default 100. */
  readonly every?: number;
  /** Receives each measurement; the report has all. */
  readonly onMeasure?: (measured: MeasuredAlignment) => void;
}

/** The alignment of each site at one step. */
export interface MeasuredAlignment {
  /** Step, from 0. */
  readonly step: number;
  /** Each site, from the input on. */
  readonly sites: readonly Alignment[];
}

/** A method that measures others: `report.of(meter)` has every measurement of the run, the newest last. */
export type AlignmentMeter = Method<readonly MeasuredAlignment[]>;

/**
 * {@link alignment} in the middle of a run, with the matrices that its methods have then: a method of its own, to be given
 * beside them. It compares the gradients under all rules of the run with those of back-propagation. It changes no gradient
 * and no weight: the run ends with the same bits with and without it.
 *
 * Needs `train` or `stepper`. Cost: two forward and backward passes over `batch` before each step that it measures, which no
 * report counts.
 *
 * @param batch - inputs and targets to measure on, which stay the caller's, for the whole run
 * @throws FrugalError `CONFIG`
 * @example
 * ```ts
 * const meter = alignmentMeter(probe, { every: 50 });
 * const report = await train(model, data, { methods: [dfa(), meter], optimizer, epochs: 40 });
 * for (const { step, sites } of report.of(meter)) console.log(step, sites.map(({ angle }) => angle));
 * ```
 */
export function alignmentMeter(batch: Batch, options: AlignmentMeterOptions = {}): AlignmentMeter {
  checkOptions('alignmentMeter', options, ['every', 'onMeasure']);
  const every = checkInteger('alignmentMeter', 'every', options.every ?? 100, { min: 1 });
  // Given apart from the batch, targets leave penalties of regularisers out, which no rule changes.
  const targets = (): tf.Tensor => batch.ys;
  return {
    name: 'alignmentMeter',
    source: 'measurement',
    open(context) {
      const history: MeasuredAlignment[] = [];
      const found = (of: Step, rules: Rules): Found =>
        read(context, (observer) => of.pass({ batch, rules, targets, observers: [observer] }).gradients().gradients);
      const probe: Probe = {
        name: 'alignmentMeter',
        before(of) {
          const { step } = of.scope.clock;
          if (step % every !== 0) return;
          const measured = { step, sites: compare(found(of, 'off'), found(of, 'on')) };
          history.push(measured);
          options.onMeasure?.(measured);
        },
      };
      return { probes: [probe], report: () => [...history] };
    },
  };
}
