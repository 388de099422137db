// Batch normalisation over [rows, channels], forward and backward, with an optional residual and ReLU.
//
// Every loop over channels is compiled for the usual numbers of channels as well (C > 0): with a constant trip count
// the compiler unrolls it and keeps the sums in registers.
#include "loops/common.hpp"
#include "loops/functions.hpp"

namespace frugal {
namespace {

// Two sums for each channel, of block sums in double: total[0 … C) and total[C … 2C).
template <int C, class AddRow>
inline void pairSums(Index begin, Index end, Index channels_, double* total, float* heap, const AddRow& addRow) {
  const Index channels = C > 0 ? C : channels_;
  float stack[C > 0 ? 2 * C : 1];
  float* first = C > 0 ? stack : heap;
  float* second = first + channels;
  for (Index c = 0; c < 2 * channels; c++) total[c] = 0;
  for (Index block = begin; block < end; block += kBlockRows) {
    const Index blockEnd = least(end, block + kBlockRows);
    for (Index c = 0; c < 2 * channels; c++) first[c] = 0;
    for (Index row = block; row < blockEnd; row++) addRow(row, first, second);
    for (Index c = 0; c < 2 * channels; c++) total[c] += first[c];
  }
}

// pairSums by all threads; the result, added in the order of threads, is in the first 2C doubles of scratch.
template <int C, class AddRow>
double* allPairSums(Index rows, Index channels, void* scratch, AddRow addRow) {
  const Index stride = (2 * channels + 7) / 8 * 8;
  double* totals = static_cast<double*>(scratch);
  float* heap = reinterpret_cast<float*>(totals + omp_get_max_threads() * stride);
  const int used = inParallel(rows, rows * channels, 1, [=](Index begin, Index end, int thread) {
    pairSums<C>(begin, end, channels, totals + thread * stride, heap + thread * stride, addRow);
  });
  for (int thread = 1; thread < used; thread++) {
    for (Index c = 0; c < 2 * channels; c++) totals[c] += totals[thread * stride + c];
  }
  return totals;
}

template <int C>
void statistics(const BatchNormArgs& args, void* scratch) {
  const Index channels = C > 0 ? C : args.channels;
  const float* x = args.x;
  // Sums around the first row: the variance keeps its digits when the mean is large against it.
  const double* sums = allPairSums<C>(args.rows, channels, scratch, [=](Index row, float* first, float* second) {
    const float* from = x + row * channels;
#pragma omp simd
    for (Index c = 0; c < channels; c++) {
      const float value = from[c] - x[c];
      first[c] += value;
      second[c] += value * value;
    }
  });
  const double perRow = 1.0 / static_cast<double>(args.rows);
  for (Index c = 0; c < channels; c++) {
    const double shifted = sums[c] * perRow;
    const double variance = sums[channels + c] * perRow - shifted * shifted;
    args.mean[c] = static_cast<float>(x[c] + shifted);
    args.variance[c] = static_cast<float>(variance > 0 || variance != variance ? variance : 0);
    args.invStd[c] = static_cast<float>(1 / sqrt(static_cast<double>(args.variance[c]) + args.epsilon));
  }
}

template <int C>
void forward(const BatchNormArgs& args, void* scratch) {
  statistics<C>(args, scratch);
  const Index channels = C > 0 ? C : args.channels;
  float* scale = static_cast<float*>(scratch);
  for (Index c = 0; c < channels; c++) scale[c] = args.gamma[c] * args.invStd[c];
  // (x − mean)·scale and not x·scale + shift: that would lose the digits that a large mean has taken.
  const float *mean = args.mean, *beta = args.beta;
  const float low = args.relu ? 0.0f : -INFINITY;
  const float *x = args.x, *residual = args.residual;
  float* y = args.y;
  inParallel(args.rows, args.rows * channels, 1, [=](Index begin, Index end, int) {
    for (Index row = begin; row < end; row++) {
      const float* from = x + row * channels;
      float* to = y + row * channels;
      if (residual != nullptr) {
        const float* added = residual + row * channels;
#pragma omp simd
        for (Index c = 0; c < channels; c++) to[c] = notBelow(low, (from[c] - mean[c]) * scale[c] + beta[c] + added[c]);
      } else {
#pragma omp simd
        for (Index c = 0; c < channels; c++) to[c] = notBelow(low, (from[c] - mean[c]) * scale[c] + beta[c]);
      }
    }
  });
}

// dx = gamma·invStd·(dy − mean(dy) − x̂·mean(dy·x̂)) = byDy·dy + byX·(x − mean) + constant: for each channel,
// linear in dy and x.
struct Line {
  float *byDy, *byX, *constant;
};

// `gated(at, c)` is the gradient of channel c of the row at `at`, behind the activation.
template <int C, class Gated>
Line gradientLine(const BatchNormGradArgs& args, void* scratch, Gated gated) {
  const Index channels = C > 0 ? C : args.channels;
  const float *x = args.x, *mean = args.mean;
  const double* sums = allPairSums<C>(args.rows, channels, scratch, [=](Index row, float* first, float* second) {
    const Index at = row * channels;
    const float* from = x + at;
#pragma omp simd
    for (Index c = 0; c < channels; c++) {
      const float value = gated(at, c);
      first[c] += value;
      second[c] += value * (from[c] - mean[c]);
    }
  });
  // The sums are at the start of scratch; the lines are written behind them.
  float* lines = reinterpret_cast<float*>(static_cast<double*>(scratch) + (2 * channels + 7) / 8 * 8);
  const Line line{lines, lines + channels, lines + 2 * channels};
  const double perRow = 1.0 / static_cast<double>(args.rows);
  for (Index c = 0; c < channels; c++) {
    const double sum = sums[c], weighted = sums[channels + c], inv = args.invStd[c];
    const double byDy = args.gamma[c] * inv, byX = -byDy * inv * inv * weighted * perRow;
    args.dbeta[c] = static_cast<float>(sum);
    args.dgamma[c] = static_cast<float>(weighted * inv);
    line.byDy[c] = static_cast<float>(byDy);
    line.byX[c] = static_cast<float>(byX);
    line.constant[c] = static_cast<float>(-byDy * sum * perRow);
  }
  return line;
}

// The two passes over memory read as little as they can, since memory is what they wait for: `first` and `second` say
// where each takes the gated gradient from.
template <int C, class First, class Second>
void twoPasses(const BatchNormGradArgs& args, void* scratch, First first, Second second) {
  const Line line = gradientLine<C>(args, scratch, first);
  const Index channels = C > 0 ? C : args.channels;
  const float *x = args.x, *mean = args.mean;
  float* dx = args.dx;
  inParallel(args.rows, args.rows * channels, 1, [=](Index begin, Index end, int) {
    const float *byDy = line.byDy, *byX = line.byX, *constant = line.constant;
    for (Index row = begin; row < end; row++) {
      const Index at = row * channels;
      const float* from = x + at;
      float* to = dx + at;
#pragma omp simd
      for (Index c = 0; c < channels; c++) to[c] = byDy[c] * second(at, c) + byX[c] * (from[c] - mean[c]) + constant[c];
    }
  });
}

template <int C>
void backward(const BatchNormGradArgs& args, void* scratch) {
  const Index channels = C > 0 ? C : args.channels;
  const float *dy = args.dy, *x = args.x, *y = args.y, *mean = args.mean, *beta = args.beta;
  float* side = args.dresidual;
  const auto open = [=](Index at, Index c) { return dy[at + c]; };
  if (side != nullptr) {
    // The gradient of the residual is the gated one: written by the first pass, read by the second.
    const auto written = [=](Index at, Index c) { return side[at + c]; };
    if (y == nullptr) return twoPasses<C>(args, scratch, [=](Index at, Index c) { return side[at + c] = dy[at + c]; }, written);
    const auto write = [=](Index at, Index c) { return side[at + c] = y[at + c] > 0 ? dy[at + c] : 0.0f; };
    return twoPasses<C>(args, scratch, write, written);
  }
  if (y == nullptr) return twoPasses<C>(args, scratch, open, open);
  if (beta == nullptr) {
    const auto byOutput = [=](Index at, Index c) { return y[at + c] > 0 ? dy[at + c] : 0.0f; };
    return twoPasses<C>(args, scratch, byOutput, byOutput);
  }
  // y > 0, by the arithmetic of the forward pass, without reading y.
  float* scale = static_cast<float*>(scratch);
  for (Index c = 0; c < channels; c++) scale[c] = args.gamma[c] * args.invStd[c];
  const auto byInput = [=](Index at, Index c) {
    return (x[at + c] - mean[c]) * scale[c] + beta[c] > 0 ? dy[at + c] : 0.0f;
  };
  BatchNormGradArgs rest = args;
  twoPasses<C>(rest, scale + (channels + 15) / 16 * 16, byInput, byInput);
}

}  // namespace

namespace FRUGAL_ISA {

void batchNorm(const BatchNormArgs& args, void* scratch) {
  switch (args.channels) {
    case 16: return forward<16>(args, scratch);
    case 32: return forward<32>(args, scratch);
    case 64: return forward<64>(args, scratch);
    case 128: return forward<128>(args, scratch);
    default: return forward<0>(args, scratch);
  }
}

void batchNormGrad(const BatchNormGradArgs& args, void* scratch) {
  switch (args.channels) {
    case 16: return backward<16>(args, scratch);
    case 32: return backward<32>(args, scratch);
    case 64: return backward<64>(args, scratch);
    case 128: return backward<128>(args, scratch);
    default: return backward<0>(args, scratch);
  }
}

void scaleShift(const float* x, const float* scale, const float* shift, float* y, Index rows, Index channels) {
  inParallel(rows, rows * channels, 1, [=](Index begin, Index end, int) {
    for (Index row = begin; row < end; row++) {
      const float* from = x + row * channels;
      float* to = y + row * channels;
#pragma omp simd
      for (Index c = 0; c < channels; c++) to[c] = from[c] * scale[c] + shift[c];
    }
  });
}

}  // namespace FRUGAL_ISA
}  // namespace frugal
