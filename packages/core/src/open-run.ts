import type * as tf from '@tensorflow/tfjs';
import type { Attachment } from './attach.js';
import { attachOn } from './attach.js';
import { type Chain, openChain, openLinks } from './chain.js';
import { type Communicator, oneRank } from './communicator.js';
import { FrugalError } from './errors.js';
import type { Link } from './link.js';
import { checkChain, exchangeIn, linksOf } from './links.js';
import type { Method } from './method.js';
import { ranksOf } from './ranks.js';

/** What is given to a run. */
export interface RunParts {
  readonly methods: readonly Method[];
  readonly optimizer: Link | readonly Link[];
  readonly communicator: Communicator | undefined;
}

/** A run whose model is attached; its chain is opened once all ranks have the same weights. */
export interface OpenedRun {
  readonly attachment: Attachment;
  readonly links: readonly Link[];
  /** The ranks among which the trainer divides its work. */
  readonly ranks: Communicator;
  /** Opens the chain. */
  openChain(): Chain;
}

/** Beside a method that makes the whole step, only what follows the weights has something to do. */
function checkBesideWhole({ name }: Method, links: readonly Link[]): void {
  const other = links.find(({ kind }) => kind !== 'weights');
  if (other)
    throw new FrugalError(
      'CONFIG',
      `${name} makes the whole step: expected optimizer: [] beside it but received ${other.name}, which would do nothing.`,
    );
}

/**
 * Attaches a model to its methods and checks its links.
 *
 * @throws FrugalError `CONFIG`, `CONFLICT`; then nothing is attached
 */
export function openRun(
  owner: string,
  model: tf.LayersModel,
  { methods, optimizer, communicator }: RunParts,
): OpenedRun {
  const links = linksOf(methods, optimizer);
  const attachment = attachOn(model, methods, communicator ?? oneRank);
  try {
    const whole = [...attachment.opened.methods].find(([, { step }]) => step)?.[0];
    if (whole) checkBesideWhole(whole, links);
    else checkChain(`${owner}: optimizer`, links);
    const ranks = ranksOf(exchangeIn(links), whole !== undefined, communicator);
    return {
      attachment,
      links,
      ranks,
      openChain() {
        const { context, opened } = attachment;
        const chain = whole
          ? openLinks(links, context, () => undefined)
          : openChain(`${owner}: optimizer`, links, context);
        opened.setRates(chain.rateOf);
        return chain;
      },
    };
  } catch (error) {
    attachment.detach();
    throw error;
  }
}

/** Loads what methods and links must await. */
export async function prepareAll(attachment: Attachment, chain: Chain): Promise<void> {
  await attachment.opened.prepare();
  await chain.prepare();
}
