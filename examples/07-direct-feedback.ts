// Trains without transposed weights: the error of the output goes straight to the dense layers, through random signs.
// Expected: angles to back-propagation that fall from 90° to below 60°, and an accuracy far above chance:
//   step   0   dense1 90°  dense2 90°
//   step  25   dense1 33°  dense2 29°   (about; and so on)
//   test accuracy 0.9 (about)
//   feedback: 0.031 of the memory of floats, 0 multiplications
import { batches, slice, train, useEngine } from '@frugal/core';
import { alignmentMeter, bdfa } from '@frugal/feedback';
import { digits, lenet } from '@frugal/models';
import { sgd } from '@frugal/optim';

await useEngine();
const data = digits({ train: 1600, test: 200 });
const model = lenet({
  filters: [8, 16],
  hidden: [64, 64],
  activation: 'tanh',
  // Nøkland's start: no first weights that the feedback has to outgrow.
  denseStart: 'zeros',
});

// Signs for the dense layers, back-propagation for the convolutions. scale 1 is plain ±1, larger than the default.
const method = bdfa({ scale: 1 });

// The angle is measured on this batch, during the run.
for (const probe of batches(slice(data.test, 0, 64), { batchSize: 64 })) {
  const meter = alignmentMeter(probe, { every: 25 });
  const report = await train(model, data.train, {
    methods: [method, meter],
    optimizer: sgd({ learningRate: 0.01, momentum: 0.9 }),
    epochs: 4,
    batchSize: 64,
    seed: 1,
    validation: data.test,
    progress: false,
  });
  for (const { step, sites } of report.of(meter)) {
    const dense = sites.filter(({ site }) => site.startsWith('dense'));
    const angles = dense.map(({ site, angle }) => `${site} ${angle.toFixed(0)}°`);
    console.log(`step ${String(step).padStart(3)}   ${angles.join('  ')}`);
  }
  console.log(`test accuracy ${report.epochs.at(-1)?.validation?.accuracy?.toFixed(2)}`);
  const { bytes, floatBytes, multiplies } = report.of(method);
  console.log(`feedback: ${(bytes / floatBytes).toFixed(3)} of the memory of floats, ${multiplies} multiplications`);
}
