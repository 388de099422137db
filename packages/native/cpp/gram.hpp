// Gram matrices y = Σ r·rᵀ [n, n] over rows r, or over the patches of images; with `ones` each is followed by a 1. The
// result is symmetric to the bit, and its bits do not depend on the number of threads.
#pragma once
#include <algorithm>
#include <vector>

#include "loops.hpp"
#include "products.hpp"

namespace frugal {

// x [rows, columns].
void gram(const float* x, float* y, Index rows, Index columns, bool ones);

// The patches of x NHWC under the window of a convolution, flattened as [height, width, channels]. No dilation.
void gramWindow(const float* x, float* y, const ConvShape& shape, bool ones);

// What the two files behind these share.

// Products that are summed in float before the sum is added to a double.
constexpr Index kGramDepth = 256;
// Partial sums of fixed parts of the rows take no more memory than this, but for a single part.
constexpr Index kGramMemory = Index{16} << 20;
// Below this many products one thread is faster.
constexpr Index kGramWork = Index{1} << 18;

constexpr Index roundUp16(Index n) { return (n + 15) / 16 * 16; }

// The rectangle of positions of an image whose products with those (dy, dx) further are wanted in one sum.
struct GramCell {
  Index dy, dx, top, left, rows, columns;
};

// A window of stride 1 meets the same products of two positions again and again. The sum for two of its places, a and b,
// has those of offset b − a, over a rectangle that depends on a and b only at its borders. So for each offset the image is
// cut into cells at the borders of all its rectangles: each product is taken once, and nothing has to be subtracted.
class GramPlan {
 public:
  explicit GramPlan(const ConvShape& shape);
  const std::vector<GramCell>& cells() const { return cells_; }
  // Numbers of the cells for two places of the window, a before b or equal.
  std::vector<Index> cellsOf(Index a, Index b) const;

 private:
  struct Span {
    Index begin, end;
  };
  // An axis of the image: the positions under place a of the window while both a and b are inside.
  struct Axis {
    Index size, out, window, pad;
    Span span(Index a, Index b) const;
    std::vector<Span> pieces(Index offset) const;
  };
  Axis vertical_, horizontal_;
  std::vector<GramCell> cells_;
  std::vector<Span> ofOffset_;
  size_t offsetAt(Index dy, Index dx) const;
};

// By the plan; for strides of 1.
void gramShared(const float* x, float* y, const ConvShape& shape, const GramPlan& plan, bool ones);

// Copies what is above the diagonal below it.
void mirror(float* y, Index n);

}  // namespace frugal
