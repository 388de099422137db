// The table of our own loops. The files in loops/ are compiled once for each instruction set, and one table is chosen
// at load (select.cpp). Everything is raw pointers: see loops/common.hpp for the reason.
#pragma once
#include <stdint.h>

namespace frugal {

using Index = int64_t;

// The numbers are those of src/addon.ts.
enum class Unary : int32_t {
  relu, relu6, step, square, negate, exp, log, sqrt, rsqrt, sigmoid, tanh, abs, clip, elu, leakyRelu, scale
};
enum class Binary : int32_t { add, subtract, multiply, divide, maximum, minimum, squaredDifference, reluGrad };
enum class Reduction : int32_t { sum, max };

constexpr int kMaxRank = 6;

// An output shape with, for each of its axes, the step of each operand (0 where it is broadcast); innermost axis last.
struct BroadcastPlan {
  int32_t rank;
  int32_t size[kMaxRank], aStep[kMaxRank], bStep[kMaxRank];
};

// An output shape with, for each of its axes, the step in the input; innermost axis last.
struct TransposePlan {
  int32_t rank;
  int32_t size[kMaxRank], step[kMaxRank];
};

// Pooling over NHWC; the order is that of src/kernels/pool.ts.
struct PoolWindow {
  int32_t batch, height, width, channels, outHeight, outWidth;
  int32_t windowHeight, windowWidth, strideHeight, strideWidth, padTop, padLeft;
};

// A tensor seen as [outer, count, inner] around one axis.
struct Around {
  Index outer, count, inner;
};

struct BatchNormArgs {
  const float *x, *gamma, *beta, *residual;  // residual may be null
  float *y, *mean, *variance, *invStd;
  Index rows, channels;
  float epsilon;
  bool relu;
};

struct BatchNormGradArgs {
  const float *dy, *x, *y, *gamma, *mean, *invStd;  // y is null for the linear activation
  const float* beta;                                // where given, relu is told from x, and y is not read
  float *dx, *dgamma, *dbeta, *dresidual;           // dresidual may be null
  Index rows, channels;
};

struct SgdArgs {
  float* w;
  const float* g;
  float* v;  // null without momentum
  Index size;
  float learningRate, momentum, weightDecay, coupledDecay;
  bool nesterov;
  // Row by row, when columns > 0: g holds only the rows `chosen` (ascending), or all of them where that is null, and the
  // new squared norm of each row goes to `norms`, unless null.
  Index columns;
  const int32_t* chosen;
  Index chosenCount;
  float* norms;
};

struct AdamArgs {
  float* w;
  const float* g;
  float *m, *v;
  Index size;
  float learningRate, beta1, beta2;
  float fresh;  // 1 − beta2, rounded once: 1 − 0.999f has lost five digits
  float gain, epsilon, weightDecay, correction1, correction2;
};

// Places in memory: three axes, whose steps are in elements.
struct GramBox {
  Index count[3], step[3];
};

// The part of a Gram matrix that is wanted: rows first … last − 1, of which the first is a multiple of 16, and all columns,
// or (upper) those from the diagonal on; others may be touched. Rows of the result are `step` apart, a multiple of 16.
struct GramPart {
  Index first, last, columns, step;
  bool upper;
};

// `scratch` always has at least scratchBytes() of the arguments named there, aligned to 64 bytes.
struct Loops {
  const char* name;
  void (*fill)(float* y, Index n, float value);
  void (*unary)(Unary op, const float* x, float* y, Index n, float p, float q);
  void (*binary)(Binary op, const float* a, const float* b, float* y, Index n, bool scalarA, bool scalarB);
  void (*binaryBroadcast)(Binary op, const float* a, const float* b, float* y, const BroadcastPlan& plan);
  void (*addN)(const float* const* x, int count, float* y, Index n);
  void (*biasActivation)(const float* x, const float* bias, float* y, Index rows, Index channels, bool relu);
  void (*reluBiasGrad)(const float* dy, const float* y, float* dx, float* dbias, Index rows, Index channels,
                       void* scratch);
  void (*dropout)(const float* x, float* y, Index n, uint32_t threshold, float keepScale, uint32_t seed);

  void (*reduce)(Reduction op, const float* x, float* y, Around shape, float scale, void* scratch);
  void (*argMax)(const float* x, int32_t* y, Index rows, Index columns);
  void (*norms)(const float* x, float* y, Around shape, void* scratch);
  void (*expand)(const float* x, float* y, Around shape, float scale);

  void (*softmax)(const float* x, float* y, Index rows, Index columns);
  void (*softmaxCrossEntropy)(const float* logits, const float* labels, float* loss, float* dlogits, float* correct,
                              Index rows, Index columns, void* scratch);

  void (*batchNorm)(const BatchNormArgs& args, void* scratch);
  void (*batchNormGrad)(const BatchNormGradArgs& args, void* scratch);
  void (*scaleShift)(const float* x, const float* scale, const float* shift, float* y, Index rows, Index channels);

  void (*maxPool)(const float* x, float* y, const PoolWindow& window);
  void (*maxPoolGrad)(const float* dy, const float* x, const float* y, float* dx, const PoolWindow& window,
                      void* scratch);
  void (*avgPool)(const float* x, float* y, const PoolWindow& window);
  void (*avgPoolGrad)(const float* dy, float* dx, const PoolWindow& window);

  void (*transpose)(const float* x, float* y, const TransposePlan& plan);
  // `count` of the shape is the number of slices of x for take, and of y for put.
  void (*take)(const float* x, const int32_t* indices, const float* scales, Index taken, float* y, Around shape);
  void (*put)(const float* x, const int32_t* indices, const float* scales, Index placed, float* y, Around shape,
              void* scratch);

  // y = e·Bᵀ, e [rows, depth], B [columns, depth] of signs: bit j % 32 of bits[k·stride + j / 32] is 1 where B[j, k] is +1.
  void (*signProduct)(const float* e, const int32_t* bits, float* y, Index rows, Index depth, Index columns,
                      Index stride);

  // totals[i][j] += Σ a[i]·b[j] over the places of a box, summed in float. Up to 15 numbers behind the columns are read.
  void (*gramProduct)(const float* a, const float* b, const GramBox& box, const GramPart& part, double* totals);
  // totals[j] += Σ x[j], likewise.
  void (*gramSums)(const float* x, const GramBox& box, Index columns, double* totals);

  // into = Σ weights[k]·parts[k], from 1 part; the bits of JavaScript. `into` may be a part, but not overlap one otherwise.
  void (*weightedSum)(const double* weights, const float* const* parts, int count, float* into, Index n);

  void (*sgd)(const SgdArgs& args);
  void (*adam)(const AdamArgs& args);
};

// Scratch for a loop whose longest channel (or column, or row, or index) axis is `longest`.
inline Index scratchBytes(int threads, Index longest) { return (threads + 2) * (longest + 4096 + 128 * threads) * 32; }

// The table for this processor.
const Loops& loops();

}  // namespace frugal
