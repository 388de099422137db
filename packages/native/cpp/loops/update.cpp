// Optimizer updates, in place.
#include "loops/common.hpp"

namespace frugal {
namespace {

template <bool HasMomentum, bool Nesterov>
void sgdLoop(const SgdArgs& args) {
  float* w = args.w;
  float* v = args.v;
  const float* g = args.g;
  const float rate = args.learningRate, momentum = args.momentum, decay = args.learningRate * args.weightDecay;
  inParallel(args.size, args.size, 16, [=](Index begin, Index end, int) {
#pragma omp simd
    for (Index i = begin; i < end; i++) {
      float direction = g[i];
      if (HasMomentum) {
        const float velocity = momentum * v[i] + g[i];
        v[i] = velocity;
        direction = Nesterov ? g[i] + momentum * velocity : velocity;
      }
      w[i] = w[i] - rate * direction - decay * w[i];
    }
  });
}

}  // namespace

namespace FRUGAL_ISA {

void sgd(const SgdArgs& args) {
  if (args.v == nullptr) sgdLoop<false, false>(args);
  else if (args.nesterov) sgdLoop<true, true>(args);
  else sgdLoop<true, false>(args);
}

void adam(const AdamArgs& a) {
  float *w = a.w, *m = a.m, *v = a.v;
  const float* g = a.g;
  const float beta1 = a.beta1, beta2 = a.beta2, gain = a.gain, fresh = 1 - a.beta2, epsilon = a.epsilon;
  const float step = a.learningRate / a.correction1, decay = a.learningRate * a.weightDecay;
  const float perCorrection2 = 1 / a.correction2;
  inParallel(a.size, 2 * a.size, 16, [=](Index begin, Index end, int) {
#pragma omp simd
    for (Index i = begin; i < end; i++) {
      const float first = beta1 * m[i] + gain * g[i];
      const float second = beta2 * v[i] + fresh * g[i] * g[i];
      m[i] = first;
      v[i] = second;
      w[i] = w[i] - step * first / (sqrtf(second * perCorrection2) + epsilon) - decay * w[i];
    }
  });
}

}  // namespace FRUGAL_ISA
}  // namespace frugal
