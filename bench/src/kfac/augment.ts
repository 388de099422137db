import { type Dataset, stream } from '@frugal/core';

const PAD = 4;

/** Copies one image, shifted by (dy, dx) with zeros from the edge, and mirrored if asked. */
function place(
  from: Dataset['inputs'],
  to: Dataset['inputs'],
  start: number,
  [height, width, channels]: readonly [number, number, number],
  { dy, dx, mirror }: { dy: number; dx: number; mirror: boolean },
): void {
  const row = width * channels;
  for (let y = Math.max(0, -dy); y < Math.min(height, height - dy); y++) {
    const [source, target] = [start + (y + dy) * row, start + y * row];
    for (let x = Math.max(0, -dx); x < Math.min(width, width - dx); x++) {
      const [a, b] = [source + (x + dx) * channels, target + (mirror ? width - 1 - x : x) * channels];
      for (let c = 0; c < channels; c++) to[b + c] = from[a + c] as number;
    }
  }
}

/**
 * The usual augmentation of CIFAR: each image shifted by up to 4 pixels in both directions, and mirrored every other time.
 * What comes in at the edge is 0, the value of a black pixel.
 */
export function augmented(data: Dataset, seed: number, epoch: number): Dataset {
  const random = stream(seed, 'augment', epoch);
  const inputs = data.inputs.slice().fill(0);
  const shape = data.shape as unknown as readonly [number, number, number];
  const size = shape.reduce((a, b) => a * b, 1);
  for (let i = 0; i < data.length; i++) {
    const shift = {
      dy: random.below(2 * PAD + 1) - PAD,
      dx: random.below(2 * PAD + 1) - PAD,
      mirror: random.below(2) === 1,
    };
    place(data.inputs, inputs, i * size, shape, shift);
  }
  return { ...data, inputs };
}
