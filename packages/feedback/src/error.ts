import { FrugalError, type Observer, type Scope, type Site } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';

const KEY = 'feedback/error';

/**
 * Keeps e = ∂L/∂z of the output site, before its softmax, for the rest of the step: [N, C]. The backward pass reaches that
 * site first, and observers run before the products.
 */
export function errorObserver(name: string): Observer {
  const owners = new WeakMap<Scope, Site>();
  return {
    name,
    onBackward({ site, scope }, _x, dy) {
      if (site.role !== 'output') return;
      const owner = owners.get(scope) ?? site;
      if (owner !== site) {
        throw new FrugalError(
          'CONFIG',
          `${name}: expected one output site but ${owner.name} and ${site.name} are both outputs: there is no one error to send back. Train with one output.`,
        );
      }
      owners.set(scope, site);
      scope.keep(KEY, tf.reshape(dy, [dy.shape[0] as number, -1]));
    },
  };
}

/** e of this step: [N, C]. */
export function errorOf(owner: string, site: Site, scope: Scope): tf.Tensor2D {
  const error = scope.get(KEY);
  if (error) return error as tf.Tensor2D;
  throw new FrugalError(
    'CONFIG',
    `${owner}: expected the error of an output site before site ${site.name} but the backward pass met none: the model must end in a dense layer or a convolution that is a site. See attach(model).uncovered.`,
  );
}

/**
 * How many values of x belong to one row of e.
 *
 * @throws FrugalError `SHAPE` when the rows do not match
 */
export function valuesPerError(owner: string, site: Site, e: tf.Tensor2D, xShape: readonly number[]): number {
  if ((xShape[0] as number) % e.shape[0] === 0) return xShape.reduce((a, b) => a * b, 1) / e.shape[0];
  throw new FrugalError(
    'SHAPE',
    `${owner}: expected x of site ${site.name} to have a multiple of ${e.shape[0]} rows, as the error [${e.shape.join(', ')}] has, but received [${xShape.join(', ')}]. Let this method skip the site.`,
  );
}
