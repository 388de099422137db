// Maximum and average pooling over NHWC, and their gradients.
#include "loops/common.hpp"
#include "loops/functions.hpp"

namespace frugal {
namespace {

// The part of a window that lies inside the image.
struct Span {
  Index top, bottom, left, right;
};

inline Span insideOf(const PoolWindow& w, Index outRow, Index outColumn) {
  const Index top = outRow * w.strideHeight - w.padTop, left = outColumn * w.strideWidth - w.padLeft;
  return {most(0, top), least(w.height, top + w.windowHeight), most(0, left), least(w.width, left + w.windowWidth)};
}

inline Index inputAt(const PoolWindow& w, Index image, Index row, Index column) {
  return ((image * w.height + row) * w.width + column) * w.channels;
}

inline Index outputAt(const PoolWindow& w, Index image, Index row, Index column) {
  return ((image * w.outHeight + row) * w.outWidth + column) * w.channels;
}

inline Index inputSize(const PoolWindow& w) { return Index{w.batch} * w.height * w.width * w.channels; }

// visit(image, outRow, outColumn) for all outputs, cut between threads at rows of images.
template <class Visit>
inline void eachOutput(const PoolWindow& w, Visit visit) {
  inParallel(Index{w.batch} * w.outHeight, inputSize(w), 1, [=](Index begin, Index end, int) {
    for (Index k = begin; k < end; k++) {
      for (Index column = 0; column < w.outWidth; column++) visit(k / w.outHeight, k % w.outHeight, column);
    }
  });
}

// Whether some input is in no window or in several, so that gradients have to be added to zeros.
inline bool needsSum(const PoolWindow& w) {
  return w.strideHeight != w.windowHeight || w.strideWidth != w.windowWidth || w.padTop != 0 || w.padLeft != 0 ||
         w.outHeight * w.strideHeight < w.height || w.outWidth * w.strideWidth < w.width;
}

}  // namespace

namespace FRUGAL_ISA {

void maxPool(const float* x, float* y, const PoolWindow& w) {
  eachOutput(w, [=](Index image, Index outRow, Index outColumn) {
    const Span span = insideOf(w, outRow, outColumn);
    float* to = y + outputAt(w, image, outRow, outColumn);
    for (Index c = 0; c < w.channels; c++) to[c] = -INFINITY;
    for (Index row = span.top; row < span.bottom; row++) {
      for (Index column = span.left; column < span.right; column++) {
        const float* from = x + inputAt(w, image, row, column);
#pragma omp simd
        for (Index c = 0; c < w.channels; c++) to[c] = larger(to[c], from[c]);
      }
    }
  });
}

void maxPoolGrad(const float* dy, const float* x, const float* y, float* dx, const PoolWindow& w, void* scratch) {
  const bool summed = needsSum(w);
  const Index perImage = Index{w.height} * w.width * w.channels;
  // Images are independent: windows of one image may overlap, so an image is never cut.
  inParallel(w.batch, inputSize(w), 1, [=](Index begin, Index end, int thread) {
    int32_t* open = static_cast<int32_t*>(scratch) + thread * ((w.channels + 15) / 16 * 16);
    if (summed) memset(dx + begin * perImage, 0, (end - begin) * perImage * sizeof(float));
    for (Index k = begin * w.outHeight * w.outWidth; k < end * w.outHeight * w.outWidth; k++) {
      const Index image = k / w.outWidth / w.outHeight, outRow = k / w.outWidth % w.outHeight;
      const Span span = insideOf(w, outRow, k % w.outWidth);
      const float *top = y + k * w.channels, *up = dy + k * w.channels;
      for (Index c = 0; c < w.channels; c++) open[c] = 1;
      for (Index row = span.top; row < span.bottom; row++) {
        for (Index column = span.left; column < span.right; column++) {
          const Index at = inputAt(w, image, row, column);
          const float* from = x + at;
          float* to = dx + at;
          // The first of equal maxima takes the whole gradient, as in TensorFlow.js.
          if (summed) {
#pragma omp simd
            for (Index c = 0; c < w.channels; c++) {
              const int32_t hit = open[c] & (from[c] == top[c] ? 1 : 0);
              to[c] += hit != 0 ? up[c] : 0.0f;
              open[c] -= hit;
            }
          } else {
#pragma omp simd
            for (Index c = 0; c < w.channels; c++) {
              const int32_t hit = open[c] & (from[c] == top[c] ? 1 : 0);
              to[c] = hit != 0 ? up[c] : 0.0f;
              open[c] -= hit;
            }
          }
        }
      }
    }
  });
}

void avgPool(const float* x, float* y, const PoolWindow& w) {
  eachOutput(w, [=](Index image, Index outRow, Index outColumn) {
    const Span span = insideOf(w, outRow, outColumn);
    float* to = y + outputAt(w, image, outRow, outColumn);
    for (Index c = 0; c < w.channels; c++) to[c] = 0;
    for (Index row = span.top; row < span.bottom; row++) {
      for (Index column = span.left; column < span.right; column++) {
        const float* from = x + inputAt(w, image, row, column);
#pragma omp simd
        for (Index c = 0; c < w.channels; c++) to[c] += from[c];
      }
    }
    const float perElement = 1.0f / static_cast<float>((span.bottom - span.top) * (span.right - span.left));
#pragma omp simd
    for (Index c = 0; c < w.channels; c++) to[c] *= perElement;
  });
}

// TensorFlow.js divides by the size of the whole window here, padding included, though its forward pass divides by what
// is inside the image. All engines have to agree, so this does the same.
void avgPoolGrad(const float* dy, float* dx, const PoolWindow& w) {
  const Index perImage = Index{w.height} * w.width * w.channels;
  const float perElement = 1.0f / static_cast<float>(w.windowHeight * w.windowWidth);
  inParallel(w.batch, inputSize(w), 1, [=](Index begin, Index end, int) {
    memset(dx + begin * perImage, 0, (end - begin) * perImage * sizeof(float));
    for (Index k = begin * w.outHeight * w.outWidth; k < end * w.outHeight * w.outWidth; k++) {
      const Index image = k / w.outWidth / w.outHeight, outRow = k / w.outWidth % w.outHeight;
      const Span span = insideOf(w, outRow, k % w.outWidth);
      const float* up = dy + k * w.channels;
      for (Index row = span.top; row < span.bottom; row++) {
        for (Index column = span.left; column < span.right; column++) {
          float* to = dx + inputAt(w, image, row, column);
#pragma omp simd
          for (Index c = 0; c < w.channels; c++) to[c] += up[c] * perElement;
        }
      }
    }
  });
}

}  // namespace FRUGAL_ISA
}  // namespace frugal
