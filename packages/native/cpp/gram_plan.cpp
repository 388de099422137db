#include "gram.hpp"

namespace frugal {

GramPlan::Span GramPlan::Axis::span(Index a, Index b) const {
  const Index begin = std::max({Index{0}, pad - a, pad - b});
  const Index end = std::min({out, size + pad - a, size + pad - b});
  return {begin + a - pad, std::max(begin, end) + a - pad};
}

// The pieces that the spans of all places with this offset are made of, in order.
std::vector<GramPlan::Span> GramPlan::Axis::pieces(Index offset) const {
  std::vector<Span> spans;
  std::vector<Index> cuts;
  for (Index a = std::max(Index{0}, -offset); a < std::min(window, window - offset); a++) {
    const Span s = span(a, a + offset);
    if (s.begin == s.end) continue;
    spans.push_back(s);
    cuts.push_back(s.begin);
    cuts.push_back(s.end);
  }
  std::sort(cuts.begin(), cuts.end());
  std::vector<Span> result;
  for (size_t k = 1; k < cuts.size(); k++) {
    const Index begin = cuts[k - 1], end = cuts[k];
    const auto holds = [=](const Span& s) { return s.begin <= begin && end <= s.end; };
    if (begin < end && std::any_of(spans.begin(), spans.end(), holds)) result.push_back({begin, end});
  }
  return result;
}

size_t GramPlan::offsetAt(Index dy, Index dx) const {
  return dy * (2 * horizontal_.window - 1) + dx + horizontal_.window - 1;
}

GramPlan::GramPlan(const ConvShape& s)
    : vertical_{s.height, s.outHeight, s.filterHeight, s.padTop},
      horizontal_{s.width, s.outWidth, s.filterWidth, s.padLeft} {
  const Index window = horizontal_.window;
  for (Index dy = 0; dy < vertical_.window; dy++) {
    const auto rows = vertical_.pieces(dy);
    for (Index dx = 1 - window; dx < window; dx++) {
      const Index begin = cells_.size();
      // Places in order have no other offsets than these; the rest of the matrix is the mirror image.
      if (dy > 0 || dx >= 0) {
        const auto columns = horizontal_.pieces(dx);
        for (const Span& r : rows)
          for (const Span& c : columns) cells_.push_back({dy, dx, r.begin, c.begin, r.end - r.begin, c.end - c.begin});
      }
      ofOffset_.push_back({begin, static_cast<Index>(cells_.size())});
    }
  }
}

std::vector<Index> GramPlan::cellsOf(Index a, Index b) const {
  const Index window = horizontal_.window;
  const Span rows = vertical_.span(a / window, b / window), columns = horizontal_.span(a % window, b % window);
  const Span all = ofOffset_[offsetAt(b / window - a / window, b % window - a % window)];
  std::vector<Index> result;
  for (Index k = all.begin; k < all.end; k++) {
    const GramCell& cell = cells_[k];
    const bool inside = cell.top >= rows.begin && cell.top < rows.end;
    if (inside && cell.left >= columns.begin && cell.left < columns.end) result.push_back(k);
  }
  return result;
}

}  // namespace frugal
