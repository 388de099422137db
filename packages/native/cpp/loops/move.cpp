// Loops that move elements: transpose, and taking and placing slices along an axis.
#include "loops/common.hpp"

namespace frugal {
namespace {

constexpr Index kTile = 16;

// Input offset of the output position `rest` (row-major over the axes for which `use` is set).
inline Index offsetOf(const TransposePlan& plan, const Index* outSteps, Index rest, int skipA, int skipB, Index* out) {
  Index from = 0, to = 0;
  for (int axis = plan.rank - 1; axis >= 0; axis--) {
    if (axis == skipA || axis == skipB) continue;
    const Index position = rest % plan.size[axis];
    rest /= plan.size[axis];
    from += position * plan.step[axis];
    to += position * outSteps[axis];
  }
  *out = to;
  return from;
}

// y[i·yStep + j] = x[i + j·xStep] for i in [0, rows), j in [0, columns), in tiles.
inline void transposePlane(const float* x, float* y, Index rows, Index columns, Index xStep, Index yStep) {
  for (Index j = 0; j < columns; j += kTile) {
    const Index jEnd = least(columns, j + kTile);
    for (Index i = 0; i < rows; i++) {
      for (Index k = j; k < jEnd; k++) y[i * yStep + k] = x[i + k * xStep];
    }
  }
}

// Copies a slice times its scale.
inline void copySlice(const float* from, float* to, Index n, float scale) {
  if (scale == 1.0f) {
    memcpy(to, from, n * sizeof(float));
    return;
  }
#pragma omp simd
  for (Index i = 0; i < n; i++) to[i] = from[i] * scale;
}

}  // namespace

namespace FRUGAL_ISA {

void transpose(const float* x, float* y, const TransposePlan& plan) {
  const int last = plan.rank - 1;
  Index outSteps[kMaxRank];
  Index size = 1;
  int unit = last;  // the output axis along which the input is contiguous
  for (int axis = last; axis >= 0; axis--) {
    outSteps[axis] = size;
    size *= plan.size[axis];
    if (plan.step[axis] == 1) unit = axis;
  }
  if (plan.step[last] == 1) {
    const Index inner = plan.size[last];
    inParallel(size / inner, size, 1, [=](Index begin, Index end, int) {
      for (Index k = begin; k < end; k++) {
        Index to;
        const Index from = offsetOf(plan, outSteps, k, last, last, &to);
        memcpy(y + to, x + from, inner * sizeof(float));
      }
    });
    return;
  }
  // Planes of the two axes that are contiguous in the input and in the output; cut into strips of kTile input columns.
  const Index rows = plan.size[unit], columns = plan.size[last];
  const Index strips = (rows + kTile - 1) / kTile, planes = size / (rows * columns);
  inParallel(planes * strips, size, 1, [=](Index begin, Index end, int) {
    for (Index k = begin; k < end; k++) {
      Index to;
      const Index from = offsetOf(plan, outSteps, k / strips, unit, last, &to);
      const Index row = k % strips * kTile;
      transposePlane(x + from + row, y + to + row * outSteps[unit], least(kTile, rows - row), columns, plan.step[last],
                     outSteps[unit]);
    }
  });
}

void take(const float* x, const int32_t* indices, const float* scales, Index taken, float* y, Around shape) {
  const Index inner = shape.inner;
  if (inner == 1) {
    inParallel(shape.outer, shape.outer * taken, 1, [=](Index begin, Index end, int) {
      for (Index row = begin; row < end; row++) {
        const float* from = x + row * shape.count;
        float* to = y + row * taken;
        if (scales != nullptr) {
#pragma omp simd
          for (Index k = 0; k < taken; k++) to[k] = from[indices[k]] * scales[k];
        } else {
#pragma omp simd
          for (Index k = 0; k < taken; k++) to[k] = from[indices[k]];
        }
      }
    });
    return;
  }
  inParallel(shape.outer * taken, shape.outer * taken * inner, 1, [=](Index begin, Index end, int) {
    for (Index slice = begin; slice < end; slice++) {
      const Index o = slice / taken, k = slice % taken;
      const float scale = scales != nullptr ? scales[k] : 1.0f;
      copySlice(x + (o * shape.count + indices[k]) * inner, y + slice * inner, inner, scale);
    }
  });
}

void put(const float* x, const int32_t* indices, const float* scales, Index placed, float* y, Around shape,
         void* scratch) {
  const Index inner = shape.inner, count = shape.count;
  if (inner == 1) {
    inParallel(shape.outer, shape.outer * count, 1, [=](Index begin, Index end, int) {
      for (Index row = begin; row < end; row++) {
        const float* from = x + row * placed;
        float* to = y + row * count;
        memset(to, 0, count * sizeof(float));
        // The indices are unique, so the scattered writes do not collide.
        if (scales != nullptr) {
#pragma omp simd
          for (Index k = 0; k < placed; k++) to[indices[k]] = from[k] * scales[k];
        } else {
#pragma omp simd
          for (Index k = 0; k < placed; k++) to[indices[k]] = from[k];
        }
      }
    });
    return;
  }
  int32_t* source = static_cast<int32_t*>(scratch);  // for each slice of y the slice of x, or −1
  for (Index k = 0; k < count; k++) source[k] = -1;
  for (Index k = 0; k < placed; k++) source[indices[k]] = static_cast<int32_t>(k);
  inParallel(shape.outer * count, shape.outer * count * inner, 1, [=](Index begin, Index end, int) {
    for (Index slice = begin; slice < end; slice++) {
      const Index o = slice / count, k = source[slice % count];
      float* to = y + slice * inner;
      if (k < 0) memset(to, 0, inner * sizeof(float));
      else copySlice(x + (o * placed + k) * inner, to, inner, scales != nullptr ? scales[k] : 1.0f);
    }
  });
}

}  // namespace FRUGAL_ISA
}  // namespace frugal
