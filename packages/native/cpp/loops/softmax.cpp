// Softmax over the last axis, and softmax with cross-entropy and its gradient in one pass.
#include "loops/common.hpp"
#include "loops/functions.hpp"

namespace frugal {
namespace {

constexpr Index kExpCost = 8;  // so much dearer than an addition

// e = exp(x − max of its row) for rows [begin, end). The exponentials are taken over all rows at once: rows are often
// shorter than a vector.
void shiftedExp(const float* x, float* e, Index begin, Index end, Index columns) {
  for (Index row = begin; row < end; row++) {
    const float* from = x + row * columns;
    float* to = e + row * columns;
    float top = from[0];
    for (Index c = 1; c < columns; c++) top = larger(top, from[c]);
#pragma omp simd
    for (Index c = 0; c < columns; c++) to[c] = from[c] - top;
  }
#pragma omp simd
  for (Index i = begin * columns; i < end * columns; i++) e[i] = expf(e[i]);
}

inline float rowSum(const float* x, Index n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index i = 0; i < n; i++) sum += x[i];
  return sum;
}

inline Index firstLargest(const float* x, Index n) {
  Index best = 0;
  for (Index i = 1; i < n; i++) {
    if (x[i] > x[best]) best = i;
  }
  return best;
}

}  // namespace

namespace FRUGAL_ISA {

void softmax(const float* x, float* y, Index rows, Index columns) {
  inParallel(rows, rows * columns * kExpCost, 1, [=](Index begin, Index end, int) {
    shiftedExp(x, y, begin, end, columns);
    for (Index row = begin; row < end; row++) {
      float* to = y + row * columns;
      const float scale = 1 / rowSum(to, columns);
#pragma omp simd
      for (Index c = 0; c < columns; c++) to[c] *= scale;
    }
  });
}

void softmaxCrossEntropy(const float* logits, const float* labels, float* loss, float* dlogits, float* correct,
                         Index rows, Index columns, void* scratch) {
  double* losses = static_cast<double*>(scratch);
  double* hits = losses + rows;
  const float perRow = 1.0f / static_cast<float>(rows);
  inParallel(rows, rows * columns * kExpCost, 1, [=](Index begin, Index end, int) {
    shiftedExp(logits, dlogits, begin, end, columns);
    for (Index row = begin; row < end; row++) {
      const float* logit = logits + row * columns;
      const float* label = labels + row * columns;
      float* gradient = dlogits + row * columns;
      const Index top = firstLargest(logit, columns);
      const float sum = rowSum(gradient, columns);
      const float logSumExp = logf(sum) + logit[top];
      const float mass = rowSum(label, columns);
      float rowLoss = 0;
#pragma omp simd reduction(+ : rowLoss)
      for (Index c = 0; c < columns; c++) {
        rowLoss += label[c] * (logSumExp - logit[c]);
        gradient[c] = (mass / sum * gradient[c] - label[c]) * perRow;
      }
      losses[row] = rowLoss;
      hits[row] = top == firstLargest(label, columns) ? 1 : 0;
    }
  });
  double totalLoss = 0, totalHits = 0;
  for (Index row = 0; row < rows; row++) {
    totalLoss += losses[row];
    totalHits += hits[row];
  }
  *loss = static_cast<float>(totalLoss / static_cast<double>(rows));
  *correct = static_cast<float>(totalHits);
}

}  // namespace FRUGAL_ISA
}  // namespace frugal
