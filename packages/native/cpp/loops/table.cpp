// The table of the loops of one instruction set.
#include "loops.hpp"

#define FRUGAL_TEXT_OF(name) #name
#define FRUGAL_TEXT(name) FRUGAL_TEXT_OF(name)

namespace frugal {
namespace FRUGAL_ISA {

void fill(float* y, Index n, float value);
void unary(Unary op, const float* x, float* y, Index n, float p, float q);
void binary(Binary op, const float* a, const float* b, float* y, Index n, bool scalarA, bool scalarB);
void binaryBroadcast(Binary op, const float* a, const float* b, float* y, const BroadcastPlan& plan);
void addN(const float* const* x, int count, float* y, Index n);
void biasActivation(const float* x, const float* bias, float* y, Index rows, Index channels, bool relu);
void reluBiasGrad(const float* dy, const float* y, float* dx, float* dbias, Index rows, Index channels, void* scratch);
void dropout(const float* x, float* y, Index n, uint32_t threshold, float keepScale, uint32_t seed);
void reduce(Reduction op, const float* x, float* y, Around shape, float scale, void* scratch);
void argMax(const float* x, int32_t* y, Index rows, Index columns);
void norms(const float* x, float* y, Around shape, void* scratch);
void expand(const float* x, float* y, Around shape, float scale);
void softmax(const float* x, float* y, Index rows, Index columns);
void softmaxCrossEntropy(const float* logits, const float* labels, float* loss, float* dlogits, float* correct, Index
                         rows, Index columns, void* scratch);
void batchNorm(const BatchNormArgs& args, void* scratch);
void batchNormGrad(const BatchNormGradArgs& args, void* scratch);
void scaleShift(const float* x, const float* scale, const float* shift, float* y, Index rows, Index channels);
void maxPool(const float* x, float* y, const PoolWindow& window);
void maxPoolGrad(const float* dy, const float* x, const float* y, float* dx, const PoolWindow& window, void* scratch);
void avgPool(const float* x, float* y, const PoolWindow& window);
void avgPoolGrad(const float* dy, float* dx, const PoolWindow& window);
void transpose(const float* x, float* y, const TransposePlan& plan);
void take(const float* x, const int32_t* indices, const float* scales, Index taken, float* y, Around shape);
void put(const float* x, const int32_t* indices, const float* scales, Index placed, float* y, Around shape, void*
         scratch);
void signProduct(const float* e, const int32_t* bits, float* y, Index rows, Index depth, Index columns, Index stride);
void gramProduct(const float* a, const float* b, const GramBox& box, const GramPart& part, double* totals);
void gramSums(const float* x, const GramBox& box, Index columns, double* totals);
void weightedSum(const double* weights, const float* const* parts, int count, float* into, Index n);
void sgd(const SgdArgs& args);
void adam(const AdamArgs& args);

extern const Loops table;
const Loops table = {
    FRUGAL_TEXT(FRUGAL_ISA), fill, unary, binary, binaryBroadcast, addN, biasActivation, reluBiasGrad, dropout,
    reduce, argMax, norms, expand, softmax, softmaxCrossEntropy, batchNorm, batchNormGrad, scaleShift, maxPool,
    maxPoolGrad, avgPool, avgPoolGrad, transpose, take, put, signProduct, gramProduct, gramSums,
    weightedSum, sgd, adam,
};

}  // namespace FRUGAL_ISA
}  // namespace frugal
