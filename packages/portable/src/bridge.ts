import * as tf from '@tensorflow/tfjs';
import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import type { Tally, WasmBackend } from './backend.js';
import { NAME } from './backend.js';
import type { Inputs, Kernel } from './kernel.js';
import { override } from './kernel.js';

/** Needs a canvas. */
const LEFT_OUT: readonly string[] = ['Draw'];

const cpuKernel = (name: string): tf.KernelConfig => tf.getKernel(name, 'cpu');

function toCpu(cpu: MathBackendCPU, backend: WasmBackend, info: tf.TensorInfo): tf.TensorInfo {
  const values = backend.readSync(info.dataId) as tf.backend_util.BackendValues;
  if (info.dtype !== 'complex64') return cpu.makeTensorInfo(info.shape, info.dtype, values);
  const parts = tf.backend_util.splitRealAndImagArrays(values as Float32Array);
  const real = cpu.makeTensorInfo(info.shape, 'float32', parts.real);
  const imag = cpu.makeTensorInfo(info.shape, 'float32', parts.imag);
  const whole = cpuKernel('Complex').kernelFunc({ inputs: { real, imag }, backend: cpu }) as tf.TensorInfo;
  cpu.disposeIntermediateTensorInfo(real);
  cpu.disposeIntermediateTensorInfo(imag);
  return whole;
}

/** Complex kernels of tfjs-backend-cpu 4.22 may share or drop parts unevenly, so what is left over is forced out. */
function release(cpu: MathBackendCPU, info: tf.TensorInfo): void {
  const entry = cpu.data.has(info.dataId) ? cpu.data.get(info.dataId) : undefined;
  if (entry === undefined) return;
  cpu.disposeData(info.dataId, true);
}

/**
 * The kernel `name` of the cpu backend as a kernel of this one: values are read, the kernel runs on a private cpu backend,
 * and its outputs are written back. Counted by name in `tally.fallbacks`, because it is slow.
 */
export function bridged(name: string, cpu: MathBackendCPU, tally: Tally): Kernel {
  return (inputs: Inputs, attrs, backend) => {
    tally.fallbacks[name] = (tally.fallbacks[name] ?? 0) + 1;
    const copies: tf.NamedTensorInfoMap = {};
    for (const [key, info] of Object.entries(inputs)) {
      // A kernel with a list of inputs names them '0', '1', …; an optional input may be absent.
      if (info != null) copies[key] = toCpu(cpu, backend, info);
    }
    const list = Array.isArray(inputs) ? (Object.values(copies) as unknown as tf.NamedTensorInfoMap) : copies;
    const out = cpuKernel(name).kernelFunc({ inputs: list, backend: cpu, attrs: attrs as tf.NamedAttrMap });
    const outs = Array.isArray(out) ? out : [out];
    const back = outs.map((info) =>
      backend.makeOutput(info.shape, info.dtype, undefined, cpu.readSync(info.dataId) as tf.backend_util.BackendValues),
    );
    for (const info of outs) release(cpu, info);
    for (const info of Object.values(copies)) release(cpu, info as tf.TensorInfo);
    return Array.isArray(out) ? back : (back[0] as tf.TensorInfo);
  };
}

/** Registers a bridge for every kernel that 'cpu' has and this engine has not; returns the private cpu backend. */
export function bridgeMissing(tally: Tally): MathBackendCPU {
  const cpu = new MathBackendCPU();
  const have = new Set(tf.getKernelsForBackend(NAME).map(({ kernelName }) => kernelName));
  for (const { kernelName } of tf.getKernelsForBackend('cpu')) {
    // Frugal's own kernels are composites that must run on this backend's tensors, whatever was registered on cpu before.
    if (have.has(kernelName) || LEFT_OUT.includes(kernelName) || kernelName.startsWith('Frugal')) continue;
    override(kernelName, bridged(kernelName, cpu, tally));
  }
  return cpu;
}
