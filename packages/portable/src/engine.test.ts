import * as tf from '@tensorflow/tfjs';
import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import { beforeAll, describe, expect, it } from 'vitest';
import type { WasmBackend } from './backend.js';
import { bridged } from './bridge.js';
import type { PortableEngine } from './index.js';
import { registerPortable } from './index.js';
import { against, normal, runKernel } from './testing.js';

/** As in kernels.test.ts: the order of float32 sums. */
const CLOSE = 1e-5;

let engine: PortableEngine;
let activeAfter: string;

beforeAll(async () => {
  engine = await registerPortable();
  activeAfter = tf.getBackend();
});

describe('registration', () => {
  it('makes nothing active, is idempotent and describes itself', async () => {
    expect(activeAfter).toBe('cpu');
    expect(await registerPortable()).toBe(engine);
    expect(engine).toMatchObject({ name: 'portable', backend: 'portable', threads: 1 });
    expect(engine.detail).toMatch(/^wasm, SIMD, 1 thread$/);
    expect(await tf.setBackend(engine.backend)).toBe(true);
  });

  it('leaves the stock backend as it is, in turns with this one', async () => {
    expect(tf.getKernel('Conv2DBackpropFilter', 'wasm')).toBeUndefined();
    const x = normal([5, 60], 1);
    for (const name of ['wasm', 'portable', 'cpu', 'wasm', 'portable']) {
      await tf.setBackend(name);
      const y = tf.tidy(() => tf.matMul(x as tf.Tensor2D, x as tf.Tensor2D, false, true).sum());
      expect(y.dataSync()[0]).toBeCloseTo(
        tf.tidy(() => x.sum(0).square().sum().dataSync()[0] as number),
        2,
      );
      y.dispose();
    }
    x.dispose();
  });

  it('has every kernel of cpu but Draw', () => {
    const have = new Set(tf.getKernelsForBackend('portable').map((k) => k.kernelName));
    const missing = tf.getKernelsForBackend('cpu').filter((k) => !have.has(k.kernelName));
    expect(missing.map((k) => k.kernelName)).toEqual(['Draw']);
  });
});

describe('the bridge', () => {
  it('gives depthwise gradients, Einsum and Fourier transforms as on cpu, and counts them', async () => {
    engine.resetCounters();
    const f = (x: tf.Tensor, w: tf.Tensor) =>
      tf
        .depthwiseConv2d(x as tf.Tensor4D, w as tf.Tensor4D, 2, 'same')
        .square()
        .sum();
    expect(await against(() => tf.grads(f)([normal([2, 7, 6, 3], 1), normal([3, 3, 3, 2], 2)]))).toBeLessThan(CLOSE);
    expect(await against(() => tf.einsum('bij,bjk->bik', normal([2, 3, 4], 1), normal([2, 4, 5], 2)))).toBeLessThan(
      CLOSE,
    );
    expect(await against(() => tf.abs(tf.spectral.rfft(normal([3, 8], 1))))).toBeLessThan(CLOSE);
    expect(
      await against(() => tf.real(tf.spectral.ifft(tf.spectral.fft(tf.complex(normal([8], 1), normal([8], 2)))))),
    ).toBeLessThan(CLOSE);
    const { fallbacks } = engine.counters();
    expect(fallbacks).toMatchObject({
      DepthwiseConv2dNativeBackpropInput: 1,
      DepthwiseConv2dNativeBackpropFilter: 1,
      Einsum: 1,
    });
    engine.resetCounters();
    expect(engine.counters()).toEqual({ fallbacks: {}, newBuffers: 0, newBytes: 0, reusedBuffers: 0 });
  });

  it('returns several outputs and keeps nothing', async () => {
    const ragged = () =>
      runKernel('RaggedRange', {
        starts: tf.tensor1d([0, 2]),
        limits: tf.tensor1d([3, 4]),
        deltas: tf.tensor1d([1, 1]),
      });
    expect(await against(ragged)).toBe(0);
    await tf.setBackend('portable');
    const before = { ...tf.memory(), ids: tf.backend().numDataIds() };
    for (let i = 0; i < 5; i++) {
      tf.tidy(() => {
        ragged();
        tf.spectral.rfft(normal([3, 8], 1));
        tf.einsum('ij,jk->ik', normal([3, 4], 1), normal([4, 5], 2));
      });
    }
    expect({ ...tf.memory(), ids: tf.backend().numDataIds() }).toEqual(before);
  });
});

describe('the private cpu backend', () => {
  it('is empty after every call', async () => {
    await tf.setBackend('portable');
    const cpu = new MathBackendCPU();
    const backend = tf.backend() as WasmBackend;
    const call = (name: string, inputs: Record<string, tf.Tensor>, attrs: object) => {
      const out = bridged(name, cpu, { fallbacks: {}, newBuffers: 0, newBytes: 0 })(inputs, attrs, backend);
      for (const { dataId } of Array.isArray(out) ? out : [out]) backend.disposeData(dataId);
      expect(cpu.numDataIds(), name).toBe(0);
    };
    tf.tidy(() => {
      const [real, imag] = [normal([2, 8], 1), normal([2, 8], 2)];
      const input = tf.complex(real, imag);
      call('Complex', { real, imag }, {});
      call('FFT', { input }, {});
      call('Real', { input }, {});
      call('UnsortedSegmentSum', { x: real, segmentIds: tf.tensor1d([0, 2], 'int32') }, { numSegments: 3 });
      call('BatchMatMul', { a: real, b: imag }, { transposeA: true, transposeB: false });
    });
  });
});

describe('memory', () => {
  it('no override keeps a buffer', async () => {
    await tf.setBackend('portable');
    const before = { ...tf.memory(), ids: tf.backend().numDataIds() };
    tf.tidy(() => {
      const [x, w, dy] = [normal([2, 5, 5, 3], 1), normal([3, 3, 3, 4], 2), normal([2, 3, 3, 4], 3)];
      const attrs = { strides: [2, 2], pad: 'same', dataFormat: 'NHWC', dilations: [1, 1] };
      runKernel('Conv2DBackpropInput', { dy, filter: w }, { ...attrs, inputShape: x.shape });
      runKernel('Conv2DBackpropFilter', { x, dy }, { ...attrs, filterShape: w.shape });
      runKernel('Conv2DBackpropInput', { dy, filter: w }, { ...attrs, strides: [1, 1], inputShape: [2, 3, 3, 3] });
      tf.matMul(normal([3, 40, 60], 1), normal([3, 50, 60], 2), false, true);
      tf.matMul(normal([3, 2], 1), normal([3, 2], 2), true, false);
      tf.fused.matMul({ a: normal([3, 2], 1), b: normal([2, 2], 1), bias: normal([2], 1), activation: 'relu' });
    });
    expect({ ...tf.memory(), ids: tf.backend().numDataIds() }).toEqual(before);
  });

  it('the wasm heap stops growing: packed weights of XNNPACK are freed with their tensor', async () => {
    await tf.setBackend('portable');
    const heap = () => (tf.backend() as unknown as { wasm: { HEAPU8: Uint8Array } }).wasm.HEAPU8.length;
    const step = () =>
      tf.tidy(() => {
        const [x, w] = [normal([16, 16, 16, 16], 1) as tf.Tensor4D, normal([3, 3, 16, 16], 2) as tf.Tensor4D];
        tf.grads((a: tf.Tensor, b: tf.Tensor) => tf.conv2d(a as tf.Tensor4D, b as tf.Tensor4D, 1, 'same').sum())([
          x,
          w,
        ]);
      });
    for (let i = 0; i < 5; i++) step();
    const before = heap();
    for (let i = 0; i < 100; i++) step();
    expect(heap()).toBe(before);
  });
});
