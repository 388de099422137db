// Gram matrices of rows, and of patches that are written out a few at a time.
#include "gram.hpp"

#include <omp.h>

#include <cstring>

#include "memory.hpp"

namespace frugal {
namespace {

// A wide result is cut into bands of rows, so that threads can share it out; each makes the rows it needs again.
constexpr Index kUncut = 512;
constexpr Index kBand = 192;

// An odd number of cache lines: powers of two would put a column of all rows into one set of the cache.
Index lineStep(Index n) { return roundUp16(n) / 16 % 2 == 0 ? roundUp16(n) + 16 : roundUp16(n); }

// y = Σ r·rᵀ over rows of n numbers, `step` apart; rowsAt(first, count, buffer) points to them, perhaps in the buffer.
template <class RowsAt>
void sumOfRows(Index rows, Index n, Index step, float* y, const RowsAt& rowsAt) {
  const Index wide = roundUp16(n), size = n * wide, threads = omp_get_max_threads();
  const Index most = std::clamp(kGramMemory / (size * Index{sizeof(double)}), Index{1}, Index{16});
  const Index parts = std::clamp(rows / 1024, Index{1}, most);
  const Index band = n <= kUncut ? n : kBand, bands = (n + band - 1) / band;
  const Index buffered = (kGramDepth + 1) * step;
  auto* totals = static_cast<double*>(scratch(parts * size * sizeof(double) + threads * buffered * sizeof(float)));
  auto* buffers = reinterpret_cast<float*>(totals + parts * size);
  const bool many = rows * n * n >= kGramWork;
#pragma omp parallel for schedule(dynamic) if (many)
  for (Index task = 0; task < parts * bands; task++) {
    const Index number = task / bands, first = task % bands * band, end = rows * (number + 1) / parts;
    const GramPart part{first, std::min(n, first + band), n, wide, true};
    double* total = totals + number * size;
    std::fill(total + first * wide, total + part.last * wide, 0.0);
    for (Index row = rows * number / parts; row < end; row += kGramDepth) {
      const Index count = std::min(kGramDepth, end - row);
      const float* from = rowsAt(row, count, buffers + omp_get_thread_num() * buffered);
      loops().gramProduct(from, from, {{1, 1, count}, {0, 0, step}}, part, total);
    }
  }
#pragma omp parallel for schedule(static) if (many)
  for (Index i = 0; i < n; i++) {
    double* sum = totals + i * wide;
    for (Index k = 1; k < parts; k++)
      for (Index j = i; j < n; j++) sum[j] += sum[k * size + j];
    for (Index j = i; j < n; j++) y[i * n + j] = static_cast<float>(sum[j]);
  }
  mirror(y, n);
}

// What follows a row: the 1 if asked for, and zeros up to the end of a register.
float* endRow(float* to, bool ones, const float* end) {
  if (ones) *to++ = 1;
  std::fill(to, const_cast<float*>(end), 0.0f);
  return to;
}

// One patch: runs of the image, and zeros beyond its borders.
void writePatch(const float* image, Index top, Index left, const ConvShape& s, float* to) {
  const Index channels = s.channels, width = s.filterWidth * channels;
  const Index begin = std::clamp(-left, Index{0}, Index{s.filterWidth});
  const Index end = std::clamp(s.width - left, begin, Index{s.filterWidth});
  for (Index row = top; row < top + s.filterHeight; row++, to += width) {
    if (row < 0 || row >= s.height) {
      std::fill(to, to + width, 0.0f);
      continue;
    }
    std::fill(to, to + begin * channels, 0.0f);
    const float* from = image + (row * s.width + left + begin) * channels;
    std::memcpy(to + begin * channels, from, (end - begin) * channels * sizeof(float));
    std::fill(to + end * channels, to + width, 0.0f);
  }
}

void gramPatches(const float* x, float* y, const ConvShape& s, bool ones) {
  const Index positions = Index{s.outHeight} * s.outWidth, image = Index{s.height} * s.width * s.channels;
  const Index columns = Index{s.filterHeight} * s.filterWidth * s.channels, n = columns + ones, step = lineStep(n);
  sumOfRows(s.batch * positions, n, step, y, [=](Index first, Index count, float* buffer) {
    for (Index k = first; k < first + count; k++) {
      const Index at = k % positions, top = at / s.outWidth * s.strideHeight - s.padTop;
      float* to = buffer + (k - first) * step;
      writePatch(x + k / positions * image, top, at % s.outWidth * s.strideWidth - s.padLeft, s, to);
      endRow(to + columns, ones, to + roundUp16(n));
    }
    return static_cast<const float*>(buffer);
  });
}

// Whether the cells of a plan have fewer products than the patches, of which half are needed.
bool sharingPays(const GramPlan& plan, const ConvShape& s) {
  // Registers that are mostly empty.
  if (s.channels < 8) return false;
  double shared = 0;
  for (const GramCell& cell : plan.cells()) shared += static_cast<double>(cell.rows) * cell.columns;
  const double places = static_cast<double>(s.filterHeight) * s.filterWidth;
  const double padded = static_cast<double>(roundUp16(s.channels)) / s.channels;
  return shared * padded < static_cast<double>(s.outHeight) * s.outWidth * places * (places + 1) / 2;
}

}  // namespace

void mirror(float* y, Index n) {
  constexpr Index kBlock = 32;
#pragma omp parallel for schedule(dynamic) if (n >= 256)
  for (Index top = 0; top < n; top += kBlock)
    for (Index left = 0; left <= top; left += kBlock)
      for (Index i = top; i < std::min(n, top + kBlock); i++)
        for (Index j = left; j < std::min(i, left + kBlock); j++) y[i * n + j] = y[j * n + i];
}

void gram(const float* x, float* y, Index rows, Index columns, bool ones) {
  if (!ones && columns % 16 == 0) {
    return sumOfRows(rows, columns, columns, y, [=](Index first, Index, float*) { return x + first * columns; });
  }
  const Index n = columns + ones, step = lineStep(n);
  sumOfRows(rows, n, step, y, [=](Index first, Index count, float* buffer) {
    for (Index k = 0; k < count; k++) {
      float* to = buffer + k * step;
      std::memcpy(to, x + (first + k) * columns, columns * sizeof(float));
      endRow(to + columns, ones, to + roundUp16(n));
    }
    return static_cast<const float*>(buffer);
  });
}

void gramWindow(const float* x, float* y, const ConvShape& s, bool ones) {
  const bool dense = s.strideHeight == 1 && s.strideWidth == 1;
  const Index pads = Index{s.padTop} + s.padLeft + s.padBottom + s.padRight;
  if (dense && s.filterHeight * s.filterWidth == 1 && pads == 0)
    return gram(x, y, Index{s.batch} * s.height * s.width, s.channels, ones);
  if (!dense) return gramPatches(x, y, s, ones);
  const GramPlan plan(s);
  if (sharingPays(plan, s)) gramShared(x, y, s, plan, ones);
  else gramPatches(x, y, s, ones);
}

}  // namespace frugal
