// What the loops share. A file of this folder is compiled several times with different instruction sets, so nothing in
// it may have external linkage outside the namespace of its set: no std templates (the linker keeps one copy of each,
// perhaps the one that an older processor cannot run), everything else in an unnamed namespace.
#pragma once
#include <math.h>
#include <omp.h>
#include <string.h>

#include "loops.hpp"

// glibc has vector versions of these in libmvec, but declares them only under -ffast-math. They treat infinities and
// NaN as the scalar functions do, so they are declared here instead.
#if defined(__x86_64__) && defined(__GLIBC__)
extern "C" {
#pragma omp declare simd notinbranch
float expf(float) noexcept;
#pragma omp declare simd notinbranch
float logf(float) noexcept;
#if __GLIBC_PREREQ(2, 35)
#pragma omp declare simd notinbranch
float expm1f(float) noexcept;
#pragma omp declare simd notinbranch
float tanhf(float) noexcept;
#endif
}
#endif

namespace frugal {
namespace FRUGAL_ISA {
// Sum of squares of a contiguous run; one function, so that everyone who needs it gets the same bits.
double sumOfSquares(const float* x, Index n);
}  // namespace FRUGAL_ISA

namespace {

// Below this many elements one thread is faster: entering a parallel region costs some 0.5 us even with one thread.
constexpr Index kParallelWork = 16384;
// Rows that are summed in float before the sum is added to a double.
constexpr Index kBlockRows = 256;
// Elements of a row that are summed in float before the sum is added to a double.
constexpr Index kBlockElements = 1024;

inline Index least(Index a, Index b) { return a < b ? a : b; }
inline Index most(Index a, Index b) { return a > b ? a : b; }

// Start of part `part` when `count` is cut into `parts` at multiples of `grain`.
inline Index partStart(Index count, int part, int parts, Index grain) {
  if (part == parts) return count;
  return count * part / parts / grain * grain;
}

// body(begin, end, thread) over [0, count), by one thread or by all. Returns the number of threads. Each thread's share
// depends on nothing but the number of threads, so results that are combined in the order of threads are reproducible.
template <class Body>
inline int inParallel(Index count, Index work, Index grain, Body body) {
  if (work < kParallelWork || count <= grain) {
    body(Index{0}, count, 0);
    return 1;
  }
  int used = 1;
#pragma omp parallel firstprivate(body)
  {
    const int thread = omp_get_thread_num();
    const int threads = omp_get_num_threads();
    if (thread == 0) used = threads;
    body(partStart(count, thread, threads, grain), partStart(count, thread + 1, threads, grain), thread);
  }
  return used;
}

// Sums over rows. Each block of kBlockRows rows is summed in float by addRow(row, firstColumn, endColumn, sums), where
// sums[0] is for firstColumn; the blocks are added up in double.
template <class AddRow>
inline void sumRows(Index rowBegin, Index rowEnd, Index columnBegin, Index columnEnd, double* total, float* block,
                    const AddRow& addRow) {
  const Index columns = columnEnd - columnBegin;
  for (Index c = 0; c < columns; c++) total[c] = 0;
  for (Index begin = rowBegin; begin < rowEnd; begin += kBlockRows) {
    const Index end = least(rowEnd, begin + kBlockRows);
    memset(block, 0, columns * sizeof(float));
    for (Index row = begin; row < end; row++) addRow(row, columnBegin, columnEnd, block);
#pragma omp simd
    for (Index c = 0; c < columns; c++) total[c] += block[c];
  }
}

// sumRows over all of [rows, columns] with all threads; finish(column, sum) is called once for each column. Wide
// matrices are cut by columns (no partial sums), narrow ones by rows (partial sums, added in the order of threads).
template <class AddRow, class Finish>
inline void columnSums(Index rows, Index columns, void* scratch, AddRow addRow, Finish finish) {
  const int threads = omp_get_max_threads();
  const Index tile = most(2048, 128 * threads);
  double* totals = static_cast<double*>(scratch);
  float* blocks = reinterpret_cast<float*>(totals + threads * tile);
  if (columns >= 128 * threads) {
    inParallel(columns, rows * columns, 16, [=](Index begin, Index end, int thread) {
      double* total = totals + thread * tile;
      for (Index c = begin; c < end; c += tile) {
        const Index tileEnd = least(end, c + tile);
        sumRows(0, rows, c, tileEnd, total, blocks + thread * tile, addRow);
        for (Index k = c; k < tileEnd; k++) finish(k, total[k - c]);
      }
    });
    return;
  }
  const int used = inParallel(rows, rows * columns, 1, [=](Index begin, Index end, int thread) {
    sumRows(begin, end, 0, columns, totals + thread * tile, blocks + thread * tile, addRow);
  });
  for (Index c = 0; c < columns; c++) {
    double sum = 0;
    for (int thread = 0; thread < used; thread++) sum += totals[thread * tile + c];
    finish(c, sum);
  }
}

}  // namespace
}  // namespace frugal
