// Matrix products and convolutions, by oneDNN.
#pragma once
#include <cstdint>

namespace frugal {

struct MatMulShape {
  int32_t batchA, batchB, rows, columns, depth;  // a batch of 1 is broadcast
  int32_t transposeA, transposeB, relu;
};

// c = act(op(a)·op(b) + bias); bias, over the columns, may be null.
void matMul(const float* a, const float* b, const float* bias, float* c, const MatMulShape& shape);

// NHWC and HWIO; the order is that of src/kernels/conv.ts.
struct ConvShape {
  int32_t batch, height, width, channels, outHeight, outWidth, outChannels, filterHeight, filterWidth;
  int32_t strideHeight, strideWidth, dilationHeight, dilationWidth, padTop, padLeft, padBottom, padRight;
};

// y = act(x ∗ filter + bias); bias may be null.
void convForward(const float* x, const float* filter, const float* bias, bool relu, float* y, const ConvShape& shape);
void convInputGrad(const float* dy, const float* filter, float* dx, const ConvShape& shape);
void convFilterGrad(const float* x, const float* dy, float* dfilter, const ConvShape& shape);

}  // namespace frugal
