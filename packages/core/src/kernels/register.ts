import { batchNormComposites, registerBatchNormGradient } from './batch-norm.js';
import { biasActivationComposites, registerBiasActivationGradient } from './bias-activation.js';
import { crossEntropyComposites, registerCrossEntropyGradient } from './cross-entropy.js';
import { dropoutComposites, registerDropoutGradient } from './dropout.js';
import { linearComposite, registerLinearGradient } from '../linear.js';
import { gramComposites } from './gram.js';
import { registerComposite } from './run.js';
import { signComposites } from './signs.js';
import { sliceComposites } from './slices.js';

const composites = [
  linearComposite,
  ...biasActivationComposites,
  ...batchNormComposites,
  ...crossEntropyComposites,
  ...sliceComposites,
  ...signComposites,
  ...gramComposites,
  ...dropoutComposites,
];

/** Gives a backend every Frugal kernel that it lacks. Idempotent. */
export function registerKernels(backendName: string): void {
  for (const composite of composites) registerComposite(composite, backendName);
  registerLinearGradient();
  registerBiasActivationGradient();
  registerBatchNormGradient();
  registerCrossEntropyGradient();
  registerDropoutGradient();
}
