// Reductions over one axis of [outer, count, inner], and the broadcast that is their gradient.
#include "loops/common.hpp"
#include "loops/functions.hpp"

namespace frugal {
namespace {

struct Identity {
  float operator()(float v) const { return v; }
};
struct Square {
  float operator()(float v) const { return v * v; }
};

template <class Map>
inline float blockSum(const float* x, Index n, const Map& map) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index i = 0; i < n; i++) sum += map(x[i]);
  return sum;
}

// Sum of a contiguous run: blocks in float, the blocks in double.
template <class Map>
inline double runSum(const float* x, Index n, const Map& map) {
  double sum = 0;
  for (Index i = 0; i < n; i += kBlockElements) sum += blockSum(x + i, least(kBlockElements, n - i), map);
  return sum;
}

// One long run by all threads, with a partial sum for each of a number of pieces that does not depend on the threads.
template <class Map>
double longRunSum(const float* x, Index n, double* partial, const Map& map) {
  constexpr Index kPieces = 256;
  const Index piece = most(kBlockElements, (n + kPieces - 1) / kPieces);
  const Index pieces = (n + piece - 1) / piece;
  inParallel(pieces, n, 1, [=](Index begin, Index end, int) {
    for (Index k = begin; k < end; k++) partial[k] = runSum(x + k * piece, least(piece, n - k * piece), map);
  });
  double sum = 0;
  for (Index k = 0; k < pieces; k++) sum += partial[k];
  return sum;
}

template <class Map>
void sumRuns(const float* x, float* y, Index runs, Index length, float scale, void* scratch, const Map& map) {
  if (runs < omp_get_max_threads()) {
    for (Index r = 0; r < runs; r++) {
      y[r] = static_cast<float>(scale * longRunSum(x + r * length, length, static_cast<double*>(scratch), map));
    }
    return;
  }
  inParallel(runs, runs * length, 1, [=](Index begin, Index end, int) {
    for (Index r = begin; r < end; r++) y[r] = static_cast<float>(scale * runSum(x + r * length, length, map));
  });
}

template <class Map>
void sumColumns(const float* x, float* y, Index rows, Index columns, float scale, void* scratch, const Map& map) {
  const auto addRow = [=](Index row, Index begin, Index end, float* sums) {
    const float* from = x + row * columns + begin;
#pragma omp simd
    for (Index c = 0; c < end - begin; c++) sums[c] += map(from[c]);
  };
  columnSums(rows, columns, scratch, addRow, [=](Index c, double sum) { y[c] = static_cast<float>(scale * sum); });
}

// Many small [count, inner] matrices: one thread sums the columns of a matrix, in tiles.
void sumColumnsOfEach(const float* x, float* y, Around shape, float scale, void* scratch) {
  constexpr Index kTile = 1024;
  double* totals = static_cast<double*>(scratch);
  float* blocks = reinterpret_cast<float*>(totals + omp_get_max_threads() * kTile);
  const Index inner = shape.inner;
  inParallel(shape.outer, shape.outer * shape.count * inner, 1, [=](Index begin, Index end, int thread) {
    double* total = totals + thread * kTile;
    for (Index o = begin; o < end; o++) {
      const float* matrix = x + o * shape.count * inner;
      const auto addRow = [=](Index row, Index first, Index last, float* sums) {
        const float* from = matrix + row * inner + first;
#pragma omp simd
        for (Index c = 0; c < last - first; c++) sums[c] += from[c];
      };
      for (Index c = 0; c < inner; c += kTile) {
        const Index tileEnd = least(inner, c + kTile);
        sumRows(0, shape.count, c, tileEnd, total, blocks + thread * kTile, addRow);
        for (Index k = c; k < tileEnd; k++) y[o * inner + k] = static_cast<float>(scale * total[k - c]);
      }
    }
  });
}

void sum(const float* x, float* y, Around shape, float scale, void* scratch) {
  if (shape.inner == 1) return sumRuns(x, y, shape.outer, shape.count, scale, scratch, Identity{});
  if (shape.outer >= 2 * omp_get_max_threads()) return sumColumnsOfEach(x, y, shape, scale, scratch);
  for (Index o = 0; o < shape.outer; o++) {
    sumColumns(x + o * shape.count * shape.inner, y + o * shape.inner, shape.count, shape.inner, scale, scratch,
               Identity{});
  }
}

float runMax(const float* x, Index n) {
  constexpr Index kLanes = 16;
  float lanes[kLanes];
  for (Index l = 0; l < kLanes; l++) lanes[l] = -INFINITY;
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
    for (Index l = 0; l < kLanes; l++) lanes[l] = larger(lanes[l], x[i + l]);
  }
  for (; i < n; i++) lanes[0] = larger(lanes[0], x[i]);
  for (Index l = 1; l < kLanes; l++) lanes[0] = larger(lanes[0], lanes[l]);
  return lanes[0];
}

void max(const float* x, float* y, Around shape) {
  const Index inner = shape.inner;
  inParallel(shape.outer, shape.outer * shape.count * inner, 1, [=](Index begin, Index end, int) {
    for (Index o = begin; o < end; o++) {
      const float* matrix = x + o * shape.count * inner;
      if (inner == 1) {
        y[o] = runMax(matrix, shape.count);
        continue;
      }
      float* to = y + o * inner;
      memcpy(to, matrix, inner * sizeof(float));
      for (Index row = 1; row < shape.count; row++) {
        const float* from = matrix + row * inner;
#pragma omp simd
        for (Index c = 0; c < inner; c++) to[c] = larger(to[c], from[c]);
      }
    }
  });
}

}  // namespace

namespace FRUGAL_ISA {

void fill(float* y, Index n, float value);  // elementwise.cpp

void reduce(Reduction op, const float* x, float* y, Around shape, float scale, void* scratch) {
  if (op == Reduction::sum) sum(x, y, shape, scale, scratch);
  else max(x, y, shape);
}

void argMax(const float* x, int32_t* y, Index rows, Index columns) {
  inParallel(rows, rows * columns, 1, [=](Index begin, Index end, int) {
    for (Index row = begin; row < end; row++) {
      const float* from = x + row * columns;
      Index best = 0;
      for (Index c = 1; c < columns; c++) {
        if (from[c] > from[best]) best = c;
      }
      y[row] = static_cast<int32_t>(best);
    }
  });
}

__attribute__((noinline)) double sumOfSquares(const float* x, Index n) { return runSum(x, n, Square{}); }

void norms(const float* x, float* y, Around shape, void* scratch) {
  if (shape.inner == 1) return sumColumns(x, y, shape.outer, shape.count, 1.0f, scratch, Square{});
  if (shape.outer == 1 && shape.count >= omp_get_max_threads()) {
    inParallel(shape.count, shape.count * shape.inner, 1, [=](Index begin, Index end, int) {
      for (Index k = begin; k < end; k++) y[k] = static_cast<float>(sumOfSquares(x + k * shape.inner, shape.inner));
    });
    return;
  }
  if (shape.outer == 1) return sumRuns(x, y, shape.count, shape.inner, 1.0f, scratch, Square{});
  inParallel(shape.count, shape.outer * shape.count * shape.inner, 1, [=](Index begin, Index end, int) {
    for (Index k = begin; k < end; k++) {
      double sum = 0;
      for (Index o = 0; o < shape.outer; o++) {
        sum += runSum(x + (o * shape.count + k) * shape.inner, shape.inner, Square{});
      }
      y[k] = static_cast<float>(sum);
    }
  });
}

void expand(const float* x, float* y, Around shape, float scale) {
  const Index inner = shape.inner;
  if (inner == 1) {
    // Whole runs of one value; cut by elements of y when there are fewer runs than threads.
    const Index length = shape.count;
    if (shape.outer < omp_get_max_threads()) {
      for (Index o = 0; o < shape.outer; o++) fill(y + o * length, length, x[o] * scale);
      return;
    }
    inParallel(shape.outer, shape.outer * length, 1, [=](Index begin, Index end, int) {
      for (Index o = begin; o < end; o++) {
        const float value = x[o] * scale;
        float* to = y + o * length;
#pragma omp simd
        for (Index i = 0; i < length; i++) to[i] = value;
      }
    });
    return;
  }
  const Index count = shape.count;
  inParallel(shape.outer * count, shape.outer * count * inner, 1, [=](Index begin, Index end, int) {
    for (Index row = begin; row < end; row++) {
      const float* from = x + row / count * inner;
      float* to = y + row * inner;
#pragma omp simd
      for (Index c = 0; c < inner; c++) to[c] = from[c] * scale;
    }
  });
}

}  // namespace FRUGAL_ISA
}  // namespace frugal
