import { FrugalError, type Site } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import type { MatrixSource } from './matrix.js';

const OWNER = 'forwardProduct';

const refuse = (owner: string, site: Site, why: string): never => {
  throw new FrugalError(
    'CONFIG',
    `${owner}: feedback '${OWNER}' needs a chain of dense layers, but site ${site.name} ${why}. Use feedback 'uniform'.`,
  );
};

/** Layers between two dense layers whose Jacobian the product may leave out: it is diagonal, or 1 in the mean. */
const ELEMENTWISE = [
  'Activation',
  'ReLU',
  'LeakyReLU',
  'ELU',
  'Softmax',
  'Dropout',
  'GaussianNoise',
  'GaussianDropout',
];

/** Refuses a site whose result does not go to the site above, and only there, through nothing but elementwise layers. */
function checkLink(owner: string, site: Site, above: Site): void {
  const from = above.below;
  if (from === undefined)
    return refuse(owner, above, 'takes its input from a join, a branch, a shared layer or a nested model');
  if (from.site !== site)
    return refuse(owner, above, `takes its input from ${from.site.name}, which is no trained dense layer`);
  const other = from.through.find((kind) => !ELEMENTWISE.includes(kind));
  if (other) return refuse(owner, above, `takes its input through ${other}, whose Jacobian is no part of the product`);
}

/** Refuses sites, from the output down, that are no chain of dense layers up to the output. */
function checkChain(owner: string, sites: readonly Site[]): void {
  for (const [i, site] of sites.entries()) {
    const above = sites[i - 1];
    if (site.geometry.slides) return refuse(owner, site, 'is a convolution');
    if (above !== undefined) checkLink(owner, site, above);
    else if (site.role !== 'output') return refuse(owner, site, 'is the last one and no output');
  }
}

/** The matrix of one site. */
interface Kept {
  readonly value: tf.Variable;
  readonly stored: { readonly byteLength: number };
}

/** B_L = W_L, B_i = W_i·B_{i+1}: [inputs of i, C], from the output down. Call it inside `tf.tidy`. */
function multiply(owner: string, sites: readonly Site[]): Map<Site, Kept> {
  const down = [...sites].sort((a, b) => b.index - a.index);
  checkChain(owner, down);
  const made = new Map<Site, Kept>();
  let product: tf.Tensor | undefined;
  for (const site of down) {
    const kernel = site.kernel as tf.Tensor as tf.Tensor2D;
    product = product === undefined ? tf.clone(kernel) : tf.matMul(kernel, product as tf.Tensor2D);
    const value = tf.variable(product, false);
    made.set(site, { value, stored: { byteLength: 4 * value.size } });
  }
  return made;
}

/**
 * Products of the trained weights as they are at the first step of a run, kept for the run and in its checkpoints.
 *
 * @throws FrugalError `CONFIG`, at the first step, where the sites are no chain of dense layers
 */
export function forwardProduct(
  owner: string,
  accepts: (site: Site) => boolean,
  scale: (site: Site) => number,
): MatrixSource {
  return ({ sites, params }) => {
    const trained = new Set(params.map(({ value }) => value));
    const own = sites.filter((site) => trained.has(site.kernel) && accepts(site));
    let made: Map<Site, Kept> | undefined;
    // Only once somebody asks: when the run is opened, ranks have not yet been given the weights of rank 0.
    const all = (): Map<Site, Kept> => {
      if (made === undefined) tf.tidy(() => void (made = multiply(owner, own)));
      return made as Map<Site, Kept>;
    };
    return {
      of({ site }) {
        const { value, stored } = all().get(site) as Kept;
        const matrix = value as tf.Tensor as tf.Tensor2D;
        return { gain: scale(site), stored, product: (e) => tf.matMul(e, matrix, false, true) };
      },
      state: () => new Map([...all()].map(([{ index }, { value }]) => [`${owner}/${OWNER}/${index}`, value])),
      dispose() {
        for (const { value } of made?.values() ?? []) value.dispose();
      },
    };
  };
}
