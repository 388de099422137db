// Sums of whole vectors with the bits of the same sums in JavaScript: in double, term by term, rounded once. So this file
// is compiled without contraction: a fused multiply-add would leave out the rounding of a product.
#include "loops/common.hpp"

namespace frugal {
namespace {

// Elements whose sums are kept in double at a time, where there are many terms: 8 KB, on the stack.
constexpr Index kTile = 1024;

// Any number of terms but none. A tile is read in whole before it is written: `into` may be a part.
inline void sumTile(float* into, const double* weights, const float* const* parts, int count, Index begin, Index end) {
  double sums[kTile];
  const Index size = end - begin;
  const float* x = parts[0] + begin;
#pragma omp simd
  for (Index i = 0; i < size; i++) sums[i] = weights[0] * x[i];
  for (int k = 1; k < count; k++) {
    const double weight = weights[k];
    const float* y = parts[k] + begin;
#pragma omp simd
    for (Index i = 0; i < size; i++) sums[i] += weight * y[i];
  }
#pragma omp simd
  for (Index i = 0; i < size; i++) into[begin + i] = static_cast<float>(sums[i]);
}

// The same at once, for as many terms as recursions have.
template <int Count>
inline void sumFew(float* into, const double* weights, const float* const* parts, Index begin, Index end) {
  const float* x = parts[0];
  const float* y = Count > 1 ? parts[1] : x;
  const float* z = Count > 2 ? parts[2] : x;
  const double a = weights[0], b = Count > 1 ? weights[1] : 0, c = Count > 2 ? weights[2] : 0;
#pragma omp simd
  for (Index i = begin; i < end; i++) {
    double sum = a * x[i];
    if (Count > 1) sum += b * y[i];
    if (Count > 2) sum += c * z[i];
    into[i] = static_cast<float>(sum);
  }
}

}  // namespace

namespace FRUGAL_ISA {

void weightedSum(const double* weights, const float* const* parts, int count, float* into, Index n) {
  inParallel(n, n, 16, [=](Index begin, Index end, int) {
    if (count == 1) sumFew<1>(into, weights, parts, begin, end);
    else if (count == 2) sumFew<2>(into, weights, parts, begin, end);
    else if (count == 3) sumFew<3>(into, weights, parts, begin, end);
    else
      for (Index tile = begin; tile < end; tile += kTile)
        sumTile(into, weights, parts, count, tile, least(end, tile + kTile));
  });
}

}  // namespace FRUGAL_ISA
}  // namespace frugal
