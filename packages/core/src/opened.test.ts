import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { attach } from './attach.js';
import { groups } from './groups.js';
import type { GradientLink } from './link.js';
import type { Method } from './method.js';
import { stepper } from './stepper.js';
import { expectNoLeak } from './testing/engines.js';
import { toyModel, toySgd } from './testing/toy.js';

const refusing = (): never => {
  throw new Error('refused');
};
/** A method that holds a tensor while it is open. */
const holding: Method = {
  name: 'holding',
  source: 'test',
  open() {
    const held = tf.tidy(() => tf.variable(tf.zeros([3]), false));
    return { dispose: () => held.dispose() };
  },
};
const refusingMethod: Method = { name: 'refusing', source: 'test', open: refusing };
const refusingLink: GradientLink = { kind: 'gradient', name: 'refusing', open: refusing };

describe('what refuses to be opened', () => {
  const model = toyModel();
  const cases: [string, () => unknown][] = [
    ['a method behind another', () => attach(model, holding, refusingMethod)],
    ['a link beside methods', () => stepper(model, { methods: [holding], optimizer: [refusingLink, toySgd()] })],
    [
      'a link of a later group',
      () =>
        stepper(model, {
          optimizer: groups([
            { match: ({ name }) => name.startsWith('conv'), optimizer: toySgd() },
            { optimizer: [refusingLink, toySgd()] },
          ]),
        }),
    ],
  ];

  it.each(cases)('%s leaves nothing behind, and the model free', async (_title, open) => {
    await expectNoLeak(() => {
      expect(open).toThrow('refused');
    });
    attach(model).detach();
  });
});
