import {
  type Chain,
  clockAt,
  type Communicator,
  type Link,
  openChain,
  openScope,
  type Param,
  type Scope,
} from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { alone } from '../../alone.js';
import { contextOf } from '../../testing/context.js';
import { awcDmsgd } from '../awc-dmsgd.js';
import { d2 } from '../d2.js';
import { daDmsgd } from '../da-dmsgd.js';
import { decentlam } from '../decentlam.js';
import { dmsgd } from '../dmsgd.js';
import { dsgd } from '../dsgd.js';
import { edm } from '../edm.js';
import type { DecentralizedLink, MomentumOptions } from '../link.js';
import { momentumTracking } from '../momentum-tracking.js';
import { qgDmsgd } from '../qg-dmsgd.js';
import { slowMo } from '../slow-mo.js';

/** All decentralized links, by name. For tests only. */
export const factories: Record<string, (options: MomentumOptions) => DecentralizedLink> = {
  awcDmsgd,
  d2,
  daDmsgd,
  decentlam,
  dmsgd,
  edm,
  momentumTracking,
  qgDmsgd,
  slowMo: (options) => slowMo({ ...options, every: 2 }),
  dsgd: (options) => dsgd(Object.fromEntries(Object.entries(options).filter(([key]) => key !== 'momentum')) as never),
};

/** The chain of one link, opened for one weight of a rank and prepared. For tests only. */
export async function openOn(link: Link, p: Param, communicator: Communicator = alone()): Promise<Chain> {
  const chain = openChain('test', [link], contextOf([p], communicator));
  await chain.prepare();
  return chain;
}

/** A weight of its own. For tests only. */
export const param = (values: readonly number[], shape: number[] = [values.length], name = 'w'): Param => ({
  name,
  value: tf.tidy(() => tf.variable(tf.tensor([...values], shape), true)),
});

/** The scope of one of 12 steps, of which each rank has as many examples. For tests only. */
export const scopeAt = (step: number, { rank, size }: Communicator = alone()): Scope =>
  openScope(clockAt(step, 12), 0, rank, 1 / size);
