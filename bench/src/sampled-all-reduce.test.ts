import { allReduce, alone, localCluster, sampledAllReduce } from '@frugal/cluster';
import { type Communicator, type Dataset, type Link, type Method, train, useEngine } from '@frugal/core';
import { describeEngines, relativeError, toyImages, weightsOf } from '@frugal/core/testing';
import { lenet } from '@frugal/models';
import { sgd } from '@frugal/optim';
import { topK } from '@frugal/sampling';
import { expect, test } from 'vitest';

const SMALL = { inputShape: [8, 8, 1], filters: [12, 16], hidden: [96], classes: 3, seed: 2 } as const;

interface Choice {
  readonly link: () => Link;
  readonly methods: () => Method[];
}

/** Two epochs of a small LeNet; its weights. */
async function trained(communicator: Communicator, { link, methods }: Choice): Promise<number[]> {
  const model = lenet(SMALL);
  await train(model, toyImages(48), {
    methods: methods(),
    optimizer: [link(), sgd({ learningRate: 0.05, momentum: 0.9, weightDecay: 1e-4 })],
    epochs: 2,
    batchSize: 12,
    seed: 1,
    progress: false,
    communicator,
  });
  const weights = weightsOf(model);
  model.dispose();
  return weights;
}

const byWeights = (): Method[] => [topK({ keep: 0.34, minK: 4, by: 'weights' })];

await describeEngines('topK by weights and sampledAllReduce', (engine) => {
  test.each(engine === 'native' ? [2, 3] : [2])(
    '%i ranks make the run of one, and stay equal to the bit; unsampled rows drift by momentum alike',
    async (size) => {
      const choice = { link: sampledAllReduce, methods: byWeights };
      const one = await trained(alone(), choice);
      const ranks = await localCluster(size, (communicator) => trained(communicator, choice));
      for (const weights of ranks) {
        // Eight steps of float32 sums in another order.
        expect(relativeError(weights, one)).toBeLessThan(1e-5);
        expect(weights).toEqual(ranks[0]);
      }
      const whole = await localCluster(size, (communicator) =>
        trained(communicator, { link: allReduce, methods: byWeights }),
      );
      expect(relativeError(ranks[0]!, whole[0]!)).toBeLessThan(1e-6);
      // The control: the sample matters.
      const exact = await trained(alone(), { link: allReduce, methods: () => [] });
      expect(relativeError(one, exact)).toBeGreaterThan(1e-3);
    },
  );

  test('topK by pairs is refused: ranks choose by their own examples', async () => {
    const choice = { link: sampledAllReduce, methods: () => [topK({ keep: 0.34, minK: 4 })] };
    await expect(localCluster(2, (communicator) => trained(communicator, choice))).rejects.toThrow(
      /the same plan on all ranks at site (conv2|dense1).*topK\(\{ by: 'weights' \}\)/,
    );
  });
});

test('LeNet at keep 0.34 sends less than 40 % of its gradients', async () => {
  await useEngine(undefined, { log: () => undefined });
  const images: Dataset = {
    ...toyImages(2),
    length: 2,
    shape: [28, 28, 1],
    inputs: Uint8Array.from({ length: 2 * 784 }, (_, i) => i % 251),
  };
  const [report] = await localCluster(2, async (communicator) => {
    const link = sampledAllReduce();
    const model = lenet({ classes: 3 });
    const run = await train(model, images, {
      methods: [topK({ keep: 0.34, by: 'weights' })],
      optimizer: [link, sgd({ learningRate: 0.01 })],
      epochs: 1,
      batchSize: 2,
      progress: false,
      communicator,
    });
    model.dispose();
    return run.of(link);
  });
  // conv1 has one channel and the output layer is exact; conv2 keeps ⌊32·0.34⌋ = 10 channels of 25·64, the hidden layer
  // ⌊3136·0.34⌋ = 1066 rows of 1024.
  const sent = 25 * 32 + 32 + 10 * 25 * 64 + 64 + 1066 * 1024 + 1024 + 1024 * 3 + 3;
  const weights = 8;
  expect(report?.bytesPerStep).toBe(4 * sent + 16 * weights);
  expect(1 - report!.bytesPerStep / report!.fullBytes).toBeGreaterThan(0.6);
});
