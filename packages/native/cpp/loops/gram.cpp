// The innermost part of Gram matrices: sums of products of vectors that lie in memory one after the other, kept in
// registers. Both operands have their long axis outside, so nothing has to be packed for it.
#include "loops/common.hpp"

namespace frugal {
namespace {

// One register of this instruction set, and the block of sums that fits into all of them beside its operands.
#if defined(__AVX512F__)
constexpr Index kBytes = 64, kRows = 8;
#elif defined(__AVX2__)
constexpr Index kBytes = 32, kRows = 4;
#else
constexpr Index kBytes = 16, kRows = 4;
#endif
constexpr Index kLanes = kBytes / 4;
constexpr Index kWide = 3;
typedef float Floats __attribute__((vector_size(kBytes)));

inline Floats load(const float* x) {
  Floats v;
  memcpy(&v, x, kBytes);
  return v;
}

inline void addTo(double* totals, Floats sums) {
  float values[kLanes];
  memcpy(values, &sums, kBytes);
#pragma omp simd
  for (Index k = 0; k < kLanes; k++) totals[k] += values[k];
}

// totals[i][j] += Σ a[i]·b[j] over the box, for `rows` (at most kM) of i and kN registers of j.
template <Index kM, Index kN>
inline void block(const float* a, const float* b, const GramBox& box, Index rows, double* totals, Index step) {
  Floats sums[kM][kN] = {};
  for (Index p = 0; p < box.count[0]; p++) {
    for (Index q = 0; q < box.count[1]; q++) {
      const Index start = p * box.step[0] + q * box.step[1];
      const float *left = a + start, *right = b + start;
      for (Index r = 0; r < box.count[2]; r++, left += box.step[2], right += box.step[2]) {
        Floats v[kN];
        for (Index j = 0; j < kN; j++) v[j] = load(right + j * kLanes);
#pragma GCC unroll 16
        for (Index i = 0; i < kM; i++)
          for (Index j = 0; j < kN; j++) sums[i][j] += left[i] * v[j];
      }
    }
  }
#pragma GCC unroll 16
  for (Index i = 0; i < kM; i++)
    if (i < rows)
      for (Index j = 0; j < kN; j++) addTo(totals + i * step + j * kLanes, sums[i][j]);
}

}  // namespace

namespace FRUGAL_ISA {

void gramProduct(const float* a, const float* b, const GramBox& box, const GramPart& part, double* totals) {
  const Index registers = (part.columns + kLanes - 1) / kLanes, step = part.step;
  for (Index i = part.first; i < part.last;) {
    const Index begin = part.upper ? i / kLanes : 0, width = registers - begin;
    // Shared out evenly: a single register is slower for each of its products than several at once.
    const Index groups = (width + kWide - 1) / kWide, rows = part.last - i;
    const bool tall = width == 1 && i + 2 * kRows <= registers * kLanes;
    for (Index g = 0; g < groups; g++) {
      const Index at = (begin + width * g / groups) * kLanes, size = width * (g + 1) / groups - width * g / groups;
      double* to = totals + i * step + at;
      if (size == 3) block<kRows, 3>(a + i, b + at, box, rows, to, step);
      else if (size == 2) block<kRows, 2>(a + i, b + at, box, rows, to, step);
      else if (tall) block<2 * kRows, 1>(a + i, b + at, box, rows, to, step);
      else block<kRows, 1>(a + i, b + at, box, rows, to, step);
    }
    i += tall ? 2 * kRows : kRows;
  }
}

void gramSums(const float* x, const GramBox& box, Index columns, double* totals) {
  for (Index at = 0; at < columns; at += kLanes) {
    Floats sum = {};
    for (Index p = 0; p < box.count[0]; p++)
      for (Index q = 0; q < box.count[1]; q++)
        for (Index r = 0; r < box.count[2]; r++)
          sum += load(x + p * box.step[0] + q * box.step[1] + r * box.step[2] + at);
    addTo(totals + at, sum);
  }
}

}  // namespace FRUGAL_ISA
}  // namespace frugal
