// Every hyper-parameter is a number, a schedule or a formula. Expected, to the digit:
//   step   demon           warm-up+cosine  1cycle          formula
//      0   0.9000          0.0100          0.0040          0.1000
//     50   0.8953          0.0538          0.0105          0.0955
//    100   0.8901          0.0976          0.0281          0.0910
//    300   0.8630          0.0794          0.1000          0.0725
//    500   0.8182          0.0500          0.0810          0.0536
//    900   0.4737          0.0024          0.0049          0.0126
//   1000   0.0000          0.0000          0.0000          0.0000
//   CONFIG: sgd: expected learningRate to use only step, total, t, pi, e, … but "0.1 * rate" contains "rate".
import { clockAt, FrugalError, hyper, type Hyper } from '@frugal/core';
import { cosine, demon, oneCycle, sgd, warmup } from '@frugal/optim';

const total = 1000;
const columns: Record<string, Hyper> = {
  // 1/(1 − β) falls in a straight line from 10 to 1.
  demon: demon({ initial: 0.9 }),
  'warm-up+cosine': warmup({ steps: 100, from: 0.01, then: cosine({ initial: 0.1 }) }),
  '1cycle': oneCycle({ peak: 0.1 }),
  formula: '0.1 * (1 - t)^0.9',
};
const names = Object.keys(columns);
const schedules = names.map((name) => hyper('03-schedules', name, columns[name] as Hyper));

console.log(`step   ${names.map((name) => name.padEnd(14)).join('  ')}`.trimEnd());
for (const step of [0, 50, 100, 300, 500, 900, 1000]) {
  const values = schedules.map((schedule) => schedule(clockAt(step, total)).toFixed(4).padEnd(14));
  console.log(`${String(step).padStart(4)}   ${values.join('  ')}`.trimEnd());
}

// A schedule goes wherever a number goes; nothing has to be called between steps.
sgd({ learningRate: '0.1 * (1 - t)^0.9', momentum: demon({ initial: 0.9 }), weightDecay: 5e-4 });

// Bad options fail where they are written, not at step 900.
try {
  sgd({ learningRate: '0.1 * rate' });
} catch (error) {
  if (FrugalError.is(error, 'CONFIG')) console.log(`${error.code}: ${error.message}`);
}
