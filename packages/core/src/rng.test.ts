import { describe, expect, it } from 'vitest';
import { stream } from './rng.js';

const draw = (n: number, f: () => number): number[] => Array.from({ length: n }, f);

describe('stream', () => {
  it('repeats for the same seed and path and differs for another', () => {
    const a = draw(5, stream(1, 'shuffle', 2).next);
    expect(draw(5, stream(1, 'shuffle', 2).next)).toEqual(a);
    expect(draw(5, stream(1, 'shuffle', 3).next)).not.toEqual(a);
    expect(draw(5, stream(2, 'shuffle', 2).next)).not.toEqual(a);
  });

  it('keeps its numbers over releases', () => {
    expect(draw(2, stream(1, 'a').next).map((x) => x.toFixed(6))).toEqual(
      draw(2, stream(1, 'a').next).map((x) => x.toFixed(6)),
    );
    expect([...stream(7, 'order').permutation(6)].sort()).toEqual([0, 1, 2, 3, 4, 5]);
  });

  it('draws normals of mean 0 and variance 1', () => {
    const x = draw(20_000, stream(3, 'normal').normal);
    const mean = x.reduce((a, b) => a + b) / x.length;
    const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
    // Five standard errors: 5/√20000 and 5·√(2/20000).
    expect(Math.abs(mean)).toBeLessThan(0.036);
    expect(Math.abs(variance - 1)).toBeLessThan(0.05);
  });

  it('permutes uniformly: each value is equally often first', () => {
    const first = [0, 0, 0, 0];
    for (let epoch = 0; epoch < 4000; epoch++) first[stream(1, epoch).permutation(4)[0] as number]! += 1;
    // Binomial(4000, 1/4): standard deviation 27.
    for (const count of first) expect(Math.abs(count - 1000)).toBeLessThan(140);
  });
});
