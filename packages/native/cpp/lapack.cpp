// LAPACK from OpenBLAS, opened when it is first asked for: a process that only trains never has OpenBLAS in it, and an
// addon that was built without it finds it once it is installed. Matrices are row-major at the border; LAPACK reads the
// same memory column-major, as the transpose, and each function below says what that makes of it.
#include "lapack.hpp"

#include <dlfcn.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "loops.hpp"
#include "napi.hpp"

namespace frugal {
namespace {

// Fortran: everything by pointer, and the length of each character argument, as size_t, at the end.
struct Lapack {
  void (*dsyevd)(const char*, const char*, const int*, double*, const int*, double*, double*, const int*, int*,
                 const int*, int*, size_t, size_t);
  void (*dpotrf)(const char*, const int*, double*, const int*, int*, size_t);
  void (*dtrsm)(const char*, const char*, const char*, const char*, const int*, const int*, const double*,
                const double*, const int*, double*, const int*, size_t, size_t, size_t, size_t);
  void (*dgesdd)(const char*, const int*, const int*, double*, const int*, double*, double*, const int*, double*,
                 const int*, double*, const int*, int*, int*, size_t);
  std::string detail;
  std::string failure;  // why there is none; else empty
};

// Sets a variable of the environment unless it is set, and takes it back: children of this process must not inherit it.
class Setting {
 public:
  Setting(const char* name, const char* value) : name_(name), ours_(value != nullptr && std::getenv(name) == nullptr) {
    if (ours_) setenv(name_, value, 1);
  }
  ~Setting() {
    if (ours_) unsetenv(name_);
  }

 private:
  const char* name_;
  bool ours_;
};

// OpenBLAS 0.3.21 does not know processors newer than itself and gives them its SSE3 code ('Prescott'), about
// half as fast here. The level that our own loops were chosen by says what the processor can do.
const char* coreType() {
  const std::string level = loops().name;
  if (level == "v4") return "SkylakeX";
  if (level == "v3") return "Haswell";
  return nullptr;
}

// OpenBLAS reads its variables once, while it is loaded. One thread: its own pool would fight with OpenMP's.
void* openLibrary(std::string& failure) {
  const Setting threads("OPENBLAS_NUM_THREADS", "1");
  const Setting core("OPENBLAS_CORETYPE", coreType());
  for (const char* name : {"libopenblas.so.0", "libopenblas.so", "libopenblas.dylib"}) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
    if (failure.empty()) failure = dlerror();
  }
  return nullptr;
}

template <class Function>
void find(void* library, const char* name, Function& function, std::string& failure) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) failure = std::string("OpenBLAS lacks ") + name;
}

std::string describeLibrary(void* library) {
  using Text = const char* (*)();
  const auto config = reinterpret_cast<Text>(dlsym(library, "openblas_get_config"));
  const auto core = reinterpret_cast<Text>(dlsym(library, "openblas_get_corename"));
  if (config == nullptr || core == nullptr) return "OpenBLAS";
  const std::string text = config();  // 'OpenBLAS 0.3.21 NO_LAPACKE …'
  return text.substr(0, text.find(' ', text.find(' ') + 1)) + ", " + core();
}

Lapack open() {
  Lapack it{};
  void* library = openLibrary(it.failure);
  if (library == nullptr) return it;
  it.failure.clear();
  find(library, "dsyevd_", it.dsyevd, it.failure);
  find(library, "dpotrf_", it.dpotrf, it.failure);
  find(library, "dtrsm_", it.dtrsm, it.failure);
  find(library, "dgesdd_", it.dgesdd, it.failure);
  it.detail = describeLibrary(library);
  return it;
}

const Lapack& lapack() {
  static const Lapack it = open();
  if (!it.failure.empty()) throw std::runtime_error(it.failure);
  return it;
}

// The build of OpenBLAS on OpenMP (libopenblas0-openmp) takes as many threads as OpenMP has. The number belongs to the
// calling thread, so this also keeps a thread of libuv from making an OpenMP pool of its own.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

void require(bool good, const char* what) {
  if (!good) throw std::invalid_argument(std::string("frugal_native: expected ") + what);
}

// A size as LAPACK's 32-bit integers hold it, with room for workspaces of 2n² + 6n + 1.
int sizeAt(const Arguments& args, size_t i) {
  const int64_t n = args.integer(i);
  require(n >= 1 && n <= 32000, "a size from 1 to 32000");
  return static_cast<int>(n);
}

double* matrixAt(const Arguments& args, size_t i, size_t size) {
  size_t length = 0;
  double* data = args.doubles(i, &length);
  require(length == size, "an array as long as its sizes say");
  return data;
}

size_t area(int rows, int columns) { return static_cast<size_t>(rows) * static_cast<size_t>(columns); }

// y [columns, rows] = xᵀ, in blocks that fit the first cache.
void transposeInto(const double* x, double* y, int rows, int columns) {
  constexpr int kBlock = 32;
  for (int top = 0; top < rows; top += kBlock)
    for (int left = 0; left < columns; left += kBlock)
      for (int i = top; i < std::min(rows, top + kBlock); i++)
        for (int j = left; j < std::min(columns, left + kBlock); j++) y[area(j, rows) + i] = x[area(i, columns) + j];
}

// A symmetric matrix is its own transpose; the eigenvectors come back as rows, and are turned into columns.
void eigen(double* a, double* values, int n) {
  const OneThread one;
  int workSize = 1 + 6 * n + 2 * n * n, integerSize = 3 + 5 * n, info = 0;
  std::vector<double> work(workSize);
  std::vector<int> integers(integerSize);
  lapack().dsyevd("V", "L", &n, a, &n, values, work.data(), &workSize, integers.data(), &integerSize, &info, 1, 1);
  if (info != 0) throw std::runtime_error("dsyevd did not converge");
  std::copy(a, a + area(n, n), work.begin());
  transposeInto(work.data(), a, n, n);
}

void eigenBinding(const Arguments& args) {
  const int n = sizeAt(args, 2);
  eigen(matrixAt(args, 0, area(n, n)), matrixAt(args, 1, n), n);
}

// The upper factor of the transpose is the lower one of ours, in place. Returns 0, or the 1-based pivot that failed.
napi_value choleskyBinding(const Arguments& args) {
  const int n = sizeAt(args, 1);
  double* a = matrixAt(args, 0, area(n, n));
  const OneThread one;
  int info = 0;
  lapack().dpotrf("U", &n, a, &n, &info, 1);
  for (int i = 0; i < n; i++) std::fill(a + area(i, n) + i + 1, a + area(i, n) + n, 0.0);
  napi_value result = nullptr;
  napi_create_int32(args.env(), info, &result);
  return result;
}

// L·Lᵀ·X = B reads, transposed, Xᵀ·U′·U = Bᵀ with U = Lᵀ as LAPACK sees it: two triangular solves from the right, which
// need no copy. (dpotrs solves from the left and would want B turned over twice.)
void choleskySolveBinding(const Arguments& args) {
  const int n = sizeAt(args, 2), columns = sizeAt(args, 3);
  const double* l = matrixAt(args, 0, area(n, n));
  double* b = matrixAt(args, 1, area(n, columns));
  const OneThread one;
  const double unit = 1;
  lapack().dtrsm("R", "U", "N", "N", &columns, &n, &unit, l, &n, b, &columns, 1, 1, 1, 1);
  lapack().dtrsm("R", "U", "T", "N", &columns, &n, &unit, l, &n, b, &columns, 1, 1, 1, 1);
}

// Aᵀ = V·S·Uᵀ: LAPACK's left vectors are our V, as rows, and its right ones, read row-major, our U.
void svdBinding(const Arguments& args) {
  const int rows = sizeAt(args, 4), columns = sizeAt(args, 5), k = std::min(rows, columns);
  double* a = matrixAt(args, 0, area(rows, columns));
  double* u = matrixAt(args, 1, area(rows, k));
  double* s = matrixAt(args, 2, k);
  double* v = matrixAt(args, 3, area(columns, k));
  const OneThread one;
  std::vector<double> vRows(area(columns, k));
  std::vector<int> integers(8 * static_cast<size_t>(k));
  int info = 0, workSize = -1;
  double best = 0;
  const auto run = [&](double* work) {
    lapack().dgesdd("S", &columns, &rows, a, &columns, s, vRows.data(), &columns, u, &k, work, &workSize,
                    integers.data(), &info, 1);
  };
  run(&best);
  workSize = static_cast<int>(best);
  std::vector<double> work(workSize);
  run(work.data());
  if (info != 0) throw std::runtime_error("dgesdd did not converge");
  transposeInto(vRows.data(), v, k, columns);
}

// A decomposition that a thread of libuv is to do and the main thread may wait for. Whoever comes first does it: a pool
// that is busy with what waits for the main thread cannot hold it up.
class Decomposition {
 public:
  Decomposition(double* a, double* values, int n) : a_(a), values_(values), n_(n) {}
  // Does the work, unless somebody has begun.
  void run() {
    if (begun_.exchange(true)) return;
    std::string failure;
    try {
      eigen(a_, values_, n_);
    } catch (const std::exception& error) {
      failure = error.what();
    }
    end(failure);
  }
  // Returns what went wrong, or an empty string. The arrays must be alive unless it has ended.
  std::string wait() {
    run();
    std::unique_lock<std::mutex> lock(mutex_);
    condition_.wait(lock, [this] { return ended_; });
    return failure_;
  }
  // For work that will not be done by libuv any more.
  void cancel() {
    if (!begun_.exchange(true)) end("cancelled");
  }

 private:
  void end(const std::string& failure) {
    const std::lock_guard<std::mutex> lock(mutex_);
    failure_ = failure;
    ended_ = true;
    condition_.notify_all();
  }

  double *a_, *values_;
  int n_;
  std::atomic<bool> begun_{false};
  std::mutex mutex_;
  std::condition_variable condition_;
  std::string failure_;
  bool ended_ = false;
};

// Work for a thread of libuv. The references keep its arrays alive; nobody else holds them. It ends in a promise, unless
// somebody may wait instead.
struct EigenTask {
  std::shared_ptr<Decomposition> decomposition;
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref references[2] = {};
};

void executeEigen(napi_env, void* data) { static_cast<EigenTask*>(data)->decomposition->run(); }

void freeEigen(napi_env env, EigenTask* task) {
  for (napi_ref reference : task->references)
    if (reference != nullptr) napi_delete_reference(env, reference);
  if (task->work != nullptr) napi_delete_async_work(env, task->work);
  delete task;
}

void completeEigen(napi_env env, napi_status status, void* data) {
  auto* task = static_cast<EigenTask*>(data);
  if (status != napi_ok) task->decomposition->cancel();
  // Ended, or the main thread, which is this one, would be in wait() now.
  const std::string failure = task->decomposition->wait();
  napi_deferred deferred = task->deferred;
  freeEigen(env, task);
  if (deferred == nullptr) return;
  napi_value result = nullptr;
  if (failure.empty()) {
    napi_get_undefined(env, &result);
    napi_resolve_deferred(env, deferred, result);
    return;
  }
  napi_value message = nullptr;
  napi_create_string_utf8(env, failure.c_str(), NAPI_AUTO_LENGTH, &message);
  napi_create_error(env, nullptr, message, &result);
  napi_reject_deferred(env, deferred, result);
}

std::shared_ptr<Decomposition> decompositionOf(const Arguments& args) {
  lapack();
  const int n = sizeAt(args, 2);
  return std::make_shared<Decomposition>(matrixAt(args, 0, area(n, n)), matrixAt(args, 1, n), n);
}

// Ends in `promise`, unless that is null.
void queueEigen(const Arguments& args, const std::shared_ptr<Decomposition>& decomposition, napi_value* promise) {
  napi_env env = args.env();
  auto* task = new EigenTask{decomposition};
  try {
    napi_value name = nullptr;
    Arguments::check(napi_create_string_utf8(env, "frugal eigen", NAPI_AUTO_LENGTH, &name), "memory");
    Arguments::check(napi_create_async_work(env, nullptr, name, executeEigen, completeEigen, task, &task->work),
                     "an event loop");
    for (size_t i = 0; i < 2; i++)
      Arguments::check(napi_create_reference(env, args.value(i), 1, &task->references[i]), "memory");
    if (promise != nullptr) Arguments::check(napi_create_promise(env, &task->deferred, promise), "memory");
    Arguments::check(napi_queue_async_work(env, task->work), "an event loop");
  } catch (...) {
    freeEigen(env, task);
    throw;
  }
}

napi_value eigenAsyncBinding(const Arguments& args) {
  napi_value promise = nullptr;
  queueEigen(args, decompositionOf(args), &promise);
  return promise;
}

using Shared = std::shared_ptr<Decomposition>;

napi_value joinEigen(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  const std::string failure = (*static_cast<Shared*>(data))->wait();
  if (!failure.empty()) napi_throw_error(env, nullptr, failure.c_str());
  return nullptr;
}

// Begins a decomposition; returns a function that waits for its end, and throws what went wrong.
napi_value eigenStartBinding(const Arguments& args) {
  napi_env env = args.env();
  auto shared = std::make_unique<Shared>(decompositionOf(args));
  const napi_finalize forget = [](napi_env, void* data, void*) { delete static_cast<Shared*>(data); };
  napi_value join = nullptr;
  Arguments::check(napi_create_function(env, "join", NAPI_AUTO_LENGTH, joinEigen, shared.get(), &join), "memory");
  Arguments::check(napi_add_finalizer(env, join, shared.get(), forget, nullptr, nullptr), "memory");
  queueEigen(args, *shared.release(), nullptr);
  return join;
}

napi_value detailBinding(const Arguments& args) {
  napi_value result = nullptr;
  napi_create_string_utf8(args.env(), lapack().detail.c_str(), NAPI_AUTO_LENGTH, &result);
  return result;
}

// As bind, for functions with a result.
template <napi_value (*Body)(const Arguments&)>
napi_value bindValue(napi_env env, napi_callback_info info) {
  try {
    return Body(Arguments(env, info));
  } catch (const std::exception& error) {
    napi_throw_error(env, nullptr, error.what());
    return nullptr;
  }
}

napi_property_descriptor function(const char* name, napi_callback callback) {
  return {name, nullptr, callback, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
}

}  // namespace

void defineLapack(napi_env env, napi_value exports) {
  const napi_property_descriptor functions[] = {
      function("lapackDetail", bindValue<detailBinding>),
      function("lapackEigen", bind<eigenBinding>),
      function("lapackEigenAsync", bindValue<eigenAsyncBinding>),
      function("lapackEigenStart", bindValue<eigenStartBinding>),
      function("lapackCholesky", bindValue<choleskyBinding>),
      function("lapackCholeskySolve", bind<choleskySolveBinding>),
      function("lapackSvd", bind<svdBinding>),
  };
  Arguments::check(napi_define_properties(env, exports, std::size(functions), functions), "an exports object");
}

}  // namespace frugal
