// The bindings: each reads its arguments and calls one loop or product. The signatures are those of src/addon.ts.
#include <omp.h>

#include <cmath>
#include <cstdio>
#include <dnnl.hpp>

#include "gram.hpp"
#include "lapack.hpp"
#include "loops.hpp"
#include "memory.hpp"
#include "napi.hpp"
#include "products.hpp"

namespace frugal {
namespace {

void* scratchFor(Index longest) { return scratch(scratchBytes(omp_get_max_threads(), longest)); }

Around aroundAt(const Arguments& args, size_t first) {
  return {args.integer(first), args.integer(first + 1), args.integer(first + 2)};
}

void fill(const Arguments& args) {
  size_t n;
  float* y = args.floats(0, &n);
  loops().fill(y, n, args.real(1));
}

void unary(const Arguments& args) {
  size_t n;
  float* y = args.floats(2, &n);
  loops().unary(static_cast<Unary>(args.integer(0)), args.floats(1), y, n, args.real(3), args.real(4));
}

void binary(const Arguments& args) {
  size_t sizeA, sizeB, n;
  const float* a = args.floats(1, &sizeA);
  const float* b = args.floats(2, &sizeB);
  float* y = args.floats(3, &n);
  loops().binary(static_cast<Binary>(args.integer(0)), a, b, y, n, sizeA < n, sizeB < n);
}

// The plan is rank, sizes, steps of a, steps of b.
void binaryBroadcast(const Arguments& args) {
  const int32_t* numbers = args.ints(4);
  BroadcastPlan plan{};
  plan.rank = numbers[0];
  for (int axis = 0; axis < plan.rank; axis++) {
    plan.size[axis] = numbers[1 + axis];
    plan.aStep[axis] = numbers[1 + plan.rank + axis];
    plan.bStep[axis] = numbers[1 + 2 * plan.rank + axis];
  }
  loops().binaryBroadcast(static_cast<Binary>(args.integer(0)), args.floats(1), args.floats(2), args.floats(3), plan);
}

void addN(const Arguments& args) {
  constexpr int kMaxTerms = 16;
  const float* terms[kMaxTerms];
  size_t n;
  float* y = args.floats(0, &n);
  const int count = static_cast<int>(args.integer(1));
  if (count > kMaxTerms) throw std::invalid_argument("frugal_native: too many terms");
  for (int i = 0; i < count; i++) terms[i] = args.floats(2 + i);
  loops().addN(terms, count, y, n);
}

void biasActivation(const Arguments& args) {
  size_t n, channels;
  const float* bias = args.floats(1, &channels);
  float* y = args.floats(2, &n);
  loops().biasActivation(args.floats(0), bias, y, n / channels, channels, args.flag(3));
}

void reluBiasGrad(const Arguments& args) {
  size_t n, channels;
  float* dx = args.floats(2, &n);
  float* dbias = args.floats(3, &channels);
  loops().reluBiasGrad(args.floats(0), args.floats(1), dx, dbias, n / channels, channels, scratchFor(channels));
}

void dropout(const Arguments& args) {
  size_t n;
  float* y = args.floats(1, &n);
  loops().dropout(args.floats(0), y, n, static_cast<uint32_t>(args.number(2)), args.real(3),
                  static_cast<uint32_t>(args.number(4)));
}

void reduce(const Arguments& args) {
  const Around shape = aroundAt(args, 3);
  loops().reduce(static_cast<Reduction>(args.integer(0)), args.floats(1), args.floats(2), shape, args.real(6),
                 scratchFor(0));
}

void argMax(const Arguments& args) {
  size_t rows;
  int32_t* y = args.ints(1, &rows);
  loops().argMax(args.floats(0), y, rows, args.integer(2));
}

void norms(const Arguments& args) { loops().norms(args.floats(0), args.floats(1), aroundAt(args, 2), scratchFor(0)); }

void expand(const Arguments& args) { loops().expand(args.floats(0), args.floats(1), aroundAt(args, 2), args.real(5)); }

void softmax(const Arguments& args) {
  size_t n;
  float* y = args.floats(1, &n);
  const Index columns = args.integer(2);
  loops().softmax(args.floats(0), y, static_cast<Index>(n) / columns, columns);
}

void softmaxCrossEntropy(const Arguments& args) {
  const Index rows = args.integer(5), columns = args.integer(6);
  loops().softmaxCrossEntropy(args.floats(0), args.floats(1), args.floats(2), args.floats(3), args.floats(4), rows,
                              columns, scratchFor(rows));
}

void batchNorm(const Arguments& args) {
  size_t n, channels;
  BatchNormArgs a{};
  a.x = args.floats(0, &n);
  a.gamma = args.floats(1, &channels);
  a.beta = args.floats(2);
  a.residual = args.optionalFloats(3);
  a.y = args.floats(4);
  a.mean = args.floats(5);
  a.variance = args.floats(6);
  a.invStd = args.floats(7);
  a.epsilon = args.real(8);
  a.relu = args.flag(9);
  a.channels = channels;
  a.rows = n / channels;
  loops().batchNorm(a, scratchFor(a.channels));
}

void batchNormGrad(const Arguments& args) {
  size_t n, channels;
  BatchNormGradArgs a{};
  a.dy = args.floats(0, &n);
  a.x = args.floats(1);
  a.y = args.optionalFloats(2);
  a.gamma = args.floats(3, &channels);
  a.mean = args.floats(4);
  a.invStd = args.floats(5);
  a.dx = args.floats(6);
  a.dgamma = args.floats(7);
  a.dbeta = args.floats(8);
  a.dresidual = args.optionalFloats(9);
  a.beta = args.optionalFloats(10);
  a.channels = channels;
  a.rows = n / channels;
  loops().batchNormGrad(a, scratchFor(a.channels));
}

// Batch normalisation with given moments: y = x·scale + shift. Scale and offset may be null.
void batchNormInference(const Arguments& args) {
  size_t n, channels;
  const float* x = args.floats(0, &n);
  const float* mean = args.floats(1, &channels);
  const float* variance = args.floats(2);
  const float* gamma = args.optionalFloats(3);
  const float* beta = args.optionalFloats(4);
  float* y = args.floats(5);
  const double epsilon = args.number(6);
  float* scale = static_cast<float*>(scratchFor(channels));
  float* shift = scale + channels;
  for (size_t c = 0; c < channels; c++) {
    const double factor = (gamma != nullptr ? gamma[c] : 1.0) / std::sqrt(variance[c] + epsilon);
    scale[c] = static_cast<float>(factor);
    shift[c] = static_cast<float>((beta != nullptr ? beta[c] : 0.0) - mean[c] * factor);
  }
  loops().scaleShift(x, scale, shift, y, n / channels, channels);
}

const PoolWindow& windowAt(const Arguments& args, size_t i) { return *reinterpret_cast<PoolWindow*>(args.ints(i)); }

void maxPool(const Arguments& args) { loops().maxPool(args.floats(0), args.floats(1), windowAt(args, 2)); }

void maxPoolGrad(const Arguments& args) {
  const PoolWindow& window = windowAt(args, 4);
  loops().maxPoolGrad(args.floats(0), args.floats(1), args.floats(2), args.floats(3), window,
                      scratchFor(window.channels));
}

void avgPool(const Arguments& args) { loops().avgPool(args.floats(0), args.floats(1), windowAt(args, 2)); }

void avgPoolGrad(const Arguments& args) { loops().avgPoolGrad(args.floats(0), args.floats(1), windowAt(args, 2)); }

// The plan is rank, sizes, steps.
void transpose(const Arguments& args) {
  const int32_t* numbers = args.ints(2);
  TransposePlan plan{};
  plan.rank = numbers[0];
  for (int axis = 0; axis < plan.rank; axis++) {
    plan.size[axis] = numbers[1 + axis];
    plan.step[axis] = numbers[1 + plan.rank + axis];
  }
  loops().transpose(args.floats(0), args.floats(1), plan);
}

void take(const Arguments& args) {
  size_t taken;
  const int32_t* indices = args.ints(1, &taken);
  loops().take(args.floats(0), indices, args.optionalFloats(2), taken, args.floats(3), aroundAt(args, 4));
}

void put(const Arguments& args) {
  size_t placed;
  const int32_t* indices = args.ints(1, &placed);
  const Around shape = aroundAt(args, 4);
  loops().put(args.floats(0), indices, args.optionalFloats(2), placed, args.floats(3), shape, scratchFor(shape.count));
}

void signProduct(const Arguments& args) {
  const Index rows = args.integer(3), depth = args.integer(4), columns = args.integer(5);
  loops().signProduct(args.floats(0), args.ints(1), args.floats(2), rows, depth, columns, args.integer(6));
}

// Arguments are the sum, the weights, and as many parts.
void weightedSum(const Arguments& args) {
  constexpr size_t kMaxParts = 16;  // maxParts of src/vectors.ts
  const float* parts[kMaxParts];
  size_t n, count;
  float* into = args.floats(0, &n);
  const double* weights = args.doubles(1, &count);
  if (count < 1 || count > kMaxParts) throw std::invalid_argument("frugal_native: expected 1 to 16 parts");
  for (size_t k = 0; k < count; k++) {
    size_t length;
    parts[k] = args.floats(2 + k, &length);
    if (length != n) throw std::invalid_argument("frugal_native: expected parts that are as long as their sum");
  }
  loops().weightedSum(weights, parts, static_cast<int>(count), into, n);
}

void sgd(const Arguments& args) {
  size_t n;
  SgdArgs a{};
  a.w = args.floats(0, &n);
  a.g = args.floats(1);
  a.v = args.optionalFloats(2);
  a.size = n;
  a.learningRate = args.real(3);
  a.momentum = args.real(4);
  a.nesterov = args.flag(5);
  a.weightDecay = args.real(6);
  a.coupledDecay = args.real(7);
  a.columns = args.integer(8);
  size_t chosen = 0;
  a.chosen = args.optionalInts(9, &chosen);
  a.chosenCount = chosen;
  a.norms = args.optionalFloats(10);
  loops().sgd(a);
}

void adam(const Arguments& args) {
  size_t n;
  AdamArgs a{};
  a.w = args.floats(0, &n);
  a.g = args.floats(1);
  a.m = args.floats(2);
  a.v = args.floats(3);
  a.size = n;
  a.learningRate = args.real(4);
  a.beta1 = args.real(5);
  a.beta2 = args.real(6);
  a.fresh = static_cast<float>(1 - args.number(6));
  a.gain = args.real(7);
  a.epsilon = args.real(8);
  a.weightDecay = args.real(9);
  a.correction1 = args.real(10);
  a.correction2 = args.real(11);
  loops().adam(a);
}

// Shapes are batchA, batchB, rows, columns, depth, transposeA, transposeB, relu.
void matMulBinding(const Arguments& args) {
  MatMulShape shape;
  int32_t* const fields[] = {&shape.batchA, &shape.batchB,     &shape.rows,       &shape.columns,
                             &shape.depth,  &shape.transposeA, &shape.transposeB, &shape.relu};
  for (size_t i = 0; i < 8; i++) *fields[i] = static_cast<int32_t>(args.integer(4 + i));
  matMul(args.floats(0), args.floats(1), args.optionalFloats(2), args.floats(3), shape);
}

const ConvShape& convAt(const Arguments& args, size_t i) { return *reinterpret_cast<ConvShape*>(args.ints(i)); }

void convForwardBinding(const Arguments& args) {
  convForward(args.floats(0), args.floats(1), args.optionalFloats(2), args.flag(5), args.floats(3), convAt(args, 4));
}

void convInputGradBinding(const Arguments& args) {
  convInputGrad(args.floats(0), args.floats(1), args.floats(2), convAt(args, 3));
}

void convFilterGradBinding(const Arguments& args) {
  convFilterGrad(args.floats(0), args.floats(1), args.floats(2), convAt(args, 3));
}

void gramBinding(const Arguments& args) {
  gram(args.floats(0), args.floats(1), args.integer(2), args.integer(3), args.flag(4));
}

void gramWindowBinding(const Arguments& args) {
  gramWindow(args.floats(0), args.floats(1), convAt(args, 2), args.flag(3));
}

void setThreads(const Arguments& args) { omp_set_num_threads(static_cast<int>(args.integer(0))); }

napi_value threads(napi_env env, napi_callback_info) {
  napi_value result = nullptr;
  napi_create_int32(env, omp_get_max_threads(), &result);
  return result;
}

napi_value instructionSet(napi_env env, napi_callback_info) {
  napi_value result = nullptr;
  napi_create_string_utf8(env, loops().name, NAPI_AUTO_LENGTH, &result);
  return result;
}

napi_value libraryVersion(napi_env env, napi_callback_info) {
  const dnnl_version_t* version = dnnl_version();
  char text[64];
  std::snprintf(text, sizeof text, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
  napi_value result = nullptr;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &result);
  return result;
}

napi_value newBuffer(napi_env env, napi_callback_info info) {
  try {
    return newArrayBuffer(env, static_cast<size_t>(Arguments(env, info).number(0)));
  } catch (const std::exception& error) {
    napi_throw_error(env, nullptr, error.what());
    return nullptr;
  }
}

void define(napi_env env, napi_value exports, const char* name, napi_callback function) {
  const napi_property_descriptor property = {name,    nullptr, function,        nullptr,
                                             nullptr, nullptr, napi_enumerable, nullptr};
  Arguments::check(napi_define_properties(env, exports, 1, &property), "an exports object");
}

void defineLoops(napi_env env, napi_value exports) {
  define(env, exports, "fill", bind<fill>);
  define(env, exports, "unary", bind<unary>);
  define(env, exports, "binary", bind<binary>);
  define(env, exports, "binaryBroadcast", bind<binaryBroadcast>);
  define(env, exports, "addN", bind<addN>);
  define(env, exports, "biasActivation", bind<biasActivation>);
  define(env, exports, "reluBiasGrad", bind<reluBiasGrad>);
  define(env, exports, "dropout", bind<dropout>);
  define(env, exports, "reduce", bind<reduce>);
  define(env, exports, "argMax", bind<argMax>);
  define(env, exports, "norms", bind<norms>);
  define(env, exports, "expand", bind<expand>);
  define(env, exports, "softmax", bind<softmax>);
  define(env, exports, "softmaxCrossEntropy", bind<softmaxCrossEntropy>);
  define(env, exports, "batchNorm", bind<batchNorm>);
  define(env, exports, "batchNormGrad", bind<batchNormGrad>);
  define(env, exports, "batchNormInference", bind<batchNormInference>);
  define(env, exports, "maxPool", bind<maxPool>);
  define(env, exports, "maxPoolGrad", bind<maxPoolGrad>);
  define(env, exports, "avgPool", bind<avgPool>);
  define(env, exports, "avgPoolGrad", bind<avgPoolGrad>);
  define(env, exports, "transpose", bind<transpose>);
  define(env, exports, "take", bind<take>);
  define(env, exports, "put", bind<put>);
  define(env, exports, "signProduct", bind<signProduct>);
  define(env, exports, "weightedSum", bind<weightedSum>);
  define(env, exports, "sgd", bind<sgd>);
  define(env, exports, "adam", bind<adam>);
}

void defineRest(napi_env env, napi_value exports) {
  define(env, exports, "matMul", bind<matMulBinding>);
  define(env, exports, "convForward", bind<convForwardBinding>);
  define(env, exports, "convInputGrad", bind<convInputGradBinding>);
  define(env, exports, "convFilterGrad", bind<convFilterGradBinding>);
  define(env, exports, "gram", bind<gramBinding>);
  define(env, exports, "gramWindow", bind<gramWindowBinding>);
  define(env, exports, "setThreads", bind<setThreads>);
  define(env, exports, "threads", threads);
  define(env, exports, "instructionSet", instructionSet);
  define(env, exports, "libraryVersion", libraryVersion);
  define(env, exports, "newBuffer", newBuffer);
}

}  // namespace
}  // namespace frugal

NAPI_MODULE_INIT() {
  try {
    frugal::defineLoops(env, exports);
    frugal::defineRest(env, exports);
    frugal::defineLapack(env, exports);
  } catch (const std::exception& error) {
    napi_throw_error(env, nullptr, error.what());
  }
  return exports;
}
