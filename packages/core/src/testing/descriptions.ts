import * as tf from '@tensorflow/tfjs';
import { type Communicator, oneRank } from '../communicator.js';
import type { GradientLink, Param, UpdateLink, WeightsLink } from '../link.js';
import type { Method, OpenedMethod } from '../method.js';
import { openMethods, type OpenedMethods } from '../open-methods.js';

/** A method whose parts need no state: every run opens the same ones. */
export function methodOf(parts: OpenedMethod, more: Partial<Omit<Method, 'open'>> = {}): Method {
  return { name: parts.rule?.name ?? parts.observer?.name ?? 'toy', source: 'test', ...more, open: () => parts };
}

/** A gradient link that makes the same of every gradient. */
export function eachGradient(name: string, change: (gradient: tf.Tensor) => tf.Tensor): GradientLink {
  return {
    kind: 'gradient',
    name,
    open: () => ({
      transform: (gradients) => new Map([...gradients].map(([of, gradient]) => [of, change(gradient)])),
    }),
  };
}

/** w ← w − rate·g, for chains worked out by hand. */
export function plainUpdate(rate = 1, name = 'plain'): UpdateLink {
  return {
    kind: 'update',
    name,
    rateOf: () => () => rate,
    open: ({ params }) => ({
      apply(gradients) {
        for (const { name: of, value } of params) {
          const gradient = gradients.get(of);
          if (gradient) value.assign(tf.sub(value, tf.mul(gradient, rate)));
        }
      },
    }),
  };
}

/**
 * A weights link that hands out the mean of all weights that the steps of the run have left, statistics of batch normalisation
 * included. Its report is the number of steps.
 */
export function toyAverage(): WeightsLink<number> {
  return {
    kind: 'weights',
    name: 'toyAverage',
    open({ params, statistics }) {
      const all = [...params, ...statistics];
      const means = new Map(
        all.map(({ name, value }) => [name, tf.tidy(() => tf.variable(tf.zerosLike(value), false))]),
      );
      const count = new Float64Array(1);
      return {
        moved() {
          const seen = ++(count as unknown as [number])[0];
          for (const { name, value } of all) {
            const mean = means.get(name) as tf.Variable;
            mean.assign(tf.add(mean, tf.div(tf.sub(value, mean), seen)));
          }
        },
        settled: () => means,
        state: () =>
          new Map<string, tf.Variable | Float64Array>([
            ['toyAverage/count', count],
            ...[...means].map(([name, mean]) => [`toyAverage/mean/${name}`, mean] as const),
          ]),
        report: () => count[0] as number,
        dispose: () => means.forEach((mean) => mean.dispose()),
      };
    },
  };
}

/** What a chain of these weights is opened with, where there is no model. */
export function bareRun(params: readonly Param[], communicator: Communicator = oneRank): OpenedMethods {
  return openMethods([], { model: tf.sequential(), params, statistics: [], sites: [], communicator });
}
