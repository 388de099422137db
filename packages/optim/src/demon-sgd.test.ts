import { stream } from '@frugal/core';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { demon } from './schedules/demon.js';
import { sgd } from './sgd.js';
import { paramOf, scopeAt, stepBy, trace } from './testing/bench.js';
import { openLink } from './testing/open.js';

describe('what Demon does to SGD', () => {
  beforeAll(() => tf.setBackend('cpu'));

  test('a constant gradient 1 moves the weight by Σ 1/(1 − β_t), but for the velocity that is left', () => {
    const steps = 1000;
    const rows = trace(sgd({ learningRate: 1, momentum: demon() }), { start: [0], gradient: () => [1], steps });
    // float64 recursion: 5455.4; 1000 additions in float32.
    expect(Math.abs((rows.at(-1)?.[0] as number) + 5455.4)).toBeLessThan(0.06);
    let limit = 0;
    for (let t = 0; t < steps; t++) limit += 1 / (1 - demon()(scopeAt(t, steps).clock));
    expect(limit).toBeCloseTo(5504.5, 1);
  });

  test('with a constant rate it is the form of the paper, which has η inside the velocity', () => {
    const gradient = (step: number, w: ArrayLike<number>): number[] => [(w[0] as number) + Math.cos(step)];
    const ours = trace(sgd({ learningRate: 0.05, momentum: demon() }), { start: [2], gradient, steps: 50 });
    let [w, v] = [2, 0];
    for (let t = 0; t < 50; t++) {
      v = demon()(scopeAt(t, 50).clock) * v - 0.05 * (gradient(t, [w])[0] as number);
      w += v;
      // float32 against float64 over up to 50 steps, weights of size 1.
      expect(Math.abs((ours[t]?.[0] as number) - w)).toBeLessThan(1e-5);
    }
  });

  test('noise floor on ½x²: Demon ends at about 0.11 of constant momentum, its EMA form does not', () => {
    const [steps, replicas] = [2000, 1000];
    const forms = {
      constant: { link: sgd({ learningRate: 0.01, momentum: 0.9 }), gain: () => 1 },
      demon: { link: sgd({ learningRate: 0.01, momentum: demon() }), gain: () => 1 },
      // v ← β v + (1 − β) g with the rate 0.1 = 0.01/(1 − 0.9): starts as the others do.
      ema: {
        link: sgd({ learningRate: 0.1, momentum: demon() }),
        gain: (t: number) => 1 - demon()({ step: t, total: steps }),
      },
    };
    const runs = Object.values(forms).map(({ link, gain }) => {
      const x = paramOf(new Array<number>(replicas).fill(5));
      return { link: openLink(link, [x]), gain, x };
    });
    const random = stream(1, 'noise floor');
    const noise = new Float32Array(replicas);
    for (let t = 0; t < steps; t++) {
      for (let i = 0; i < replicas; i++) noise[i] = random.normal();
      tf.tidy(() => {
        const xi = tf.tensor1d(noise);
        for (const { link, x, gain } of runs) {
          stepBy(link, new Map([['w', tf.mul(tf.add(x.value, xi), gain(t))]]), scopeAt(t, steps));
        }
      });
    }
    const [constant = 0, decayed = 0, ema = 0] = runs.map(({ x }) =>
      tf.tidy(() => x.value.square().mean().dataSync()[0]),
    );
    // Expected .0517, .0059, .0544. A variance of 1000 replicas has a standard error of 4.5 %; the same noise for all.
    expect(constant).toBeGreaterThan(0.0517 * 0.8);
    expect(constant).toBeLessThan(0.0517 * 1.2);
    expect(decayed / constant).toBeGreaterThan(0.09);
    expect(decayed / constant).toBeLessThan(0.14);
    expect(ema / constant, 'the negative control').toBeGreaterThan(0.8);
    for (const { link, x } of runs) {
      link.dispose?.();
      x.value.dispose();
    }
  });
});
