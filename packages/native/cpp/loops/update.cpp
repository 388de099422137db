// Optimizer updates, in place.
#include "loops/common.hpp"

namespace frugal {
namespace {

// One weight: h joins the gradient and its coupled decay, the velocity follows h, and the weight moves.
template <bool HasMomentum, bool Nesterov, bool Coupled>
struct SgdStep {
  float rate, momentum, decay, coupled;

  explicit SgdStep(const SgdArgs& args)
      : rate(args.learningRate), momentum(args.momentum), decay(args.learningRate * args.weightDecay),
        coupled(args.coupledDecay) {}

  inline void operator()(float& w, float* v, float g) const {
    const float h = Coupled ? g + coupled * w : g;
    float direction = h;
    if (HasMomentum) {
      const float velocity = momentum * *v + h;
      *v = velocity;
      direction = Nesterov ? h + momentum * velocity : velocity;
    }
    w = w - rate * direction - decay * w;
  }
};

template <bool HasMomentum, bool Nesterov, bool Coupled>
void sgdLoop(const SgdArgs& args) {
  const SgdStep<HasMomentum, Nesterov, Coupled> step(args);
  float* w = args.w;
  float* v = args.v;
  const float* g = args.g;
  inParallel(args.size, args.size, 16, [=](Index begin, Index end, int) {
#pragma omp simd
    for (Index i = begin; i < end; i++) step(w[i], HasMomentum ? v + i : nullptr, g[i]);
  });
}

// One row: with its gradient, or with none (g is null), which is a gradient of zeros that nobody reads.
template <bool HasMomentum, bool Nesterov, bool Coupled>
void sgdRow(const SgdArgs& args, float* w, float* v, const float* g) {
  const SgdStep<HasMomentum, Nesterov, Coupled> step(args);
  const float rate = step.rate, momentum = step.momentum, decay = step.decay;
  const Index columns = args.columns;
  if (g != nullptr) {
#pragma omp simd
    for (Index i = 0; i < columns; i++) step(w[i], HasMomentum ? v + i : nullptr, g[i]);
  } else if (Coupled) {
#pragma omp simd
    for (Index i = 0; i < columns; i++) step(w[i], HasMomentum ? v + i : nullptr, 0.0f);
  } else if (HasMomentum) {
#pragma omp simd
    for (Index i = 0; i < columns; i++) {
      const float velocity = momentum * v[i];
      v[i] = velocity;
      w[i] = w[i] - rate * (Nesterov ? momentum * velocity : velocity) - decay * w[i];
    }
  } else if (decay != 0) {
#pragma omp simd
    for (Index i = 0; i < columns; i++) w[i] = w[i] - decay * w[i];
  }
}

template <bool HasMomentum, bool Nesterov, bool Coupled>
void sgdRows(const SgdArgs& args) {
  const Index columns = args.columns;
  inParallel(args.size / columns, args.size, 1, [=](Index begin, Index end, int) {
    Index next = 0;
    while (next < args.chosenCount && args.chosen[next] < begin) next++;
    for (Index row = begin; row < end; row++) {
      const float* g = nullptr;
      if (args.chosen == nullptr) g = args.g + row * columns;
      else if (next < args.chosenCount && args.chosen[next] == row) g = args.g + next++ * columns;
      float* w = args.w + row * columns;
      sgdRow<HasMomentum, Nesterov, Coupled>(args, w, HasMomentum ? args.v + row * columns : nullptr, g);
      if (args.norms != nullptr) args.norms[row] = static_cast<float>(FRUGAL_ISA::sumOfSquares(w, columns));
    }
  });
}

template <bool HasMomentum, bool Nesterov, bool Coupled>
void sgdShaped(const SgdArgs& args) {
  if (args.columns > 0) sgdRows<HasMomentum, Nesterov, Coupled>(args);
  else sgdLoop<HasMomentum, Nesterov, Coupled>(args);
}

template <bool HasMomentum, bool Nesterov>
void sgdAny(const SgdArgs& args) {
  if (args.coupledDecay != 0) sgdShaped<HasMomentum, Nesterov, true>(args);
  else sgdShaped<HasMomentum, Nesterov, false>(args);
}

}  // namespace

namespace FRUGAL_ISA {

void sgd(const SgdArgs& args) {
  if (args.v == nullptr) sgdAny<false, false>(args);
  else if (args.nesterov) sgdAny<true, true>(args);
  else sgdAny<true, false>(args);
}

void adam(const AdamArgs& a) {
  float *w = a.w, *m = a.m, *v = a.v;
  const float* g = a.g;
  const float beta1 = a.beta1, beta2 = a.beta2, gain = a.gain, fresh = a.fresh, epsilon = a.epsilon;
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
