// Gram matrices of the patches of windows of stride 1, by products of the image with itself (GramPlan).
#include <omp.h>

#include <cstring>
#include <utility>

#include "gram.hpp"
#include "memory.hpp"

namespace frugal {
namespace {

// The images of one part should stay in the second cache while one cell after the other reads them.
constexpr Index kPartBytes = Index{1} << 20;

struct Images {
  const float* x;
  Index count, height, width, channels;
  Index size() const { return height * width * channels; }
};

// The sums of a cell: [channels, step], and the sums of the positions in a last row.
struct Totals {
  double* at;
  Index step;
  bool sums;
};

// A box of positions with its longest axis innermost. Where it lies is the same for both operands.
GramBox boxOf(Index images, Index rows, Index columns, const Images& from) {
  GramBox box{{images, rows, columns}, {from.size(), from.width * from.channels, from.channels}};
  for (int axis : {0, 1}) {
    if (box.count[axis] <= box.count[2]) continue;
    std::swap(box.count[axis], box.count[2]);
    std::swap(box.step[axis], box.step[2]);
  }
  return box;
}

// Adds the products of a cell in all images, in boxes of about kGramDepth positions.
void addCell(const Images& from, const GramCell& cell, const Totals& totals) {
  const Index channels = from.channels, depth = channels > 32 ? kGramDepth / 2 : kGramDepth;
  const Index columns = std::min(cell.columns, depth), rows = std::min(cell.rows, std::max(Index{1}, depth / columns));
  const Index images = std::max(Index{1}, depth / (columns * rows));
  const Index further = (cell.dy * from.width + cell.dx) * channels;
  const GramPart part{0, channels, channels, totals.step, cell.dy == 0 && cell.dx == 0};
  for (Index image = 0; image < from.count; image += images)
    for (Index row = 0; row < cell.rows; row += rows)
      for (Index column = 0; column < cell.columns; column += columns) {
        const Index at = (cell.top + row) * from.width + cell.left + column;
        const float* a = from.x + image * from.size() + at * channels;
        const GramBox box = boxOf(std::min(images, from.count - image), std::min(rows, cell.rows - row),
                                  std::min(columns, cell.columns - column), from);
        loops().gramProduct(a, a + further, box, part, totals.at);
        if (totals.sums && part.upper) loops().gramSums(a, box, channels, totals.at + channels * totals.step);
      }
}

// The totals of all cells, of each part of the images one after the other, and what y is written from.
struct Assembly {
  const GramPlan& plan;
  double* totals;
  Index cells, parts, channels, step, n;
  bool ones;
  Index size() const { return (channels + ones) * step; }
};

// The first part's totals become those of all images.
void addParts(const Assembly& from, Index begin, Index end) {
  for (Index part = 1; part < from.parts; part++) {
    const double* more = from.totals + part * from.cells * from.size();
    for (Index k = begin; k < end; k++) from.totals[k] += more[k];
  }
}

// The block of y for places a and b of the window; `sum` has room for a row of it.
void writePair(const Assembly& from, Index a, Index b, double* sum, float* y) {
  const auto cells = from.plan.cellsOf(a, b);
  const Index channels = from.channels;
  for (Index i = 0; i < channels; i++) {
    std::fill(sum, sum + channels, 0.0);
    for (Index k : cells) {
      const double* row = from.totals + k * from.size() + i * from.step;
      for (Index j = 0; j < channels; j++) sum[j] += row[j];
    }
    float* to = y + (a * channels + i) * from.n + b * channels;
    for (Index j = 0; j < channels; j++) to[j] = static_cast<float>(sum[j]);
  }
}

// The last column of y: the sums of the patches under place a.
void writeSums(const Assembly& from, Index a, float* y) {
  const auto cells = from.plan.cellsOf(a, a);
  for (Index i = 0; i < from.channels; i++) {
    double sum = 0;
    for (Index k : cells) sum += from.totals[k * from.size() + from.channels * from.step + i];
    y[(a * from.channels + i + 1) * from.n - 1] = static_cast<float>(sum);
  }
}

// y on and above its diagonal. Inside of a parallel region.
void assemble(const Assembly& from, double* rows, float* y) {
  const Index places = (from.n - from.ones) / from.channels, all = from.cells * from.size();
#pragma omp for schedule(static)
  for (Index k = 0; k < all; k += from.step) addParts(from, k, k + from.step);
#pragma omp for schedule(dynamic)
  for (Index pair = 0; pair < places * places; pair++) {
    const Index a = pair / places, b = pair % places;
    if (a <= b) writePair(from, a, b, rows + omp_get_thread_num() * from.step, y);
    if (a == b && from.ones) writeSums(from, a, y);
  }
}

Index partsOf(const Images& all, Index bytes) {
  const Index most = std::clamp(kGramMemory / bytes, Index{1}, Index{16});
  const Index wanted = (all.count * all.size() * Index{sizeof(float)} + kPartBytes - 1) / kPartBytes;
  return std::min({wanted, most, all.count});
}

}  // namespace

void gramShared(const float* x, float* y, const ConvShape& s, const GramPlan& plan, bool ones) {
  const Images all{x, s.batch, s.height, s.width, s.channels};
  const Index channels = s.channels, n = Index{s.filterHeight} * s.filterWidth * channels + ones;
  const Index cells = plan.cells().size(), threads = omp_get_max_threads(), step = roundUp16(channels);
  const Index bytes = cells * (channels + ones) * step * Index{sizeof(double)}, parts = partsOf(all, bytes);
  auto* totals = static_cast<double*>(
      scratch(parts * bytes + threads * step * sizeof(double) + (all.size() + 16) * sizeof(float)));
  const Assembly assembly{plan, totals, cells, parts, channels, step, n, ones};
  double* rows = totals + parts * cells * assembly.size();
  // A register may reach beyond the last image, which therefore is read from a copy.
  auto* last = reinterpret_cast<float*>(rows + threads * step);
  const bool copied = channels % 16 != 0;
  if (copied) {
    std::memcpy(last, x + (all.count - 1) * all.size(), all.size() * sizeof(float));
    std::fill(last + all.size(), last + all.size() + 16, 0.0f);
  }
#pragma omp parallel
  {
#pragma omp for schedule(dynamic)
    for (Index task = 0; task < parts * cells; task++) {
      const Index part = task / cells, first = all.count * part / parts, end = all.count * (part + 1) / parts;
      const Totals total{totals + task * assembly.size(), step, ones};
      const GramCell& cell = plan.cells()[task % cells];
      std::fill(total.at, total.at + assembly.size(), 0.0);
      const bool apart = copied && end == all.count;
      addCell({x + first * all.size(), end - first - apart, s.height, s.width, channels}, cell, total);
      if (apart) addCell({last, 1, s.height, s.width, channels}, cell, total);
    }
    assemble(assembly, rows, y);
  }
  if (ones) y[n * n - 1] = static_cast<float>(static_cast<double>(s.batch) * s.outHeight * s.outWidth);
  mirror(y, n);
}

}  // namespace frugal
