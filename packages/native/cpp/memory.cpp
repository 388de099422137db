#include "memory.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "napi.hpp"

namespace frugal {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

size_t roundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

void unmap(napi_env, void* data, void* size) { munmap(data, reinterpret_cast<uintptr_t>(size)); }

struct Free {
  void operator()(void* data) const { std::free(data); }
};

}  // namespace

napi_value newArrayBuffer(napi_env env, size_t bytes) {
  const bool huge = bytes >= kHugePage;
  const size_t size = roundUp(bytes, huge ? kHugePage : kPage);
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (huge) madvise(data, size, MADV_HUGEPAGE);  // advice: without effect where the kernel has no huge pages
#endif
  napi_value buffer;
  const napi_status status =
      napi_create_external_arraybuffer(env, data, bytes, unmap, reinterpret_cast<void*>(size), &buffer);
  if (status != napi_ok) {
    munmap(data, size);
    Arguments::check(status, "a runtime with external array buffers");
  }
  return buffer;
}

void* scratch(size_t bytes) {
  thread_local std::unique_ptr<void, Free> block;
  thread_local size_t size = 0;
  if (bytes > size) {
    size = roundUp(bytes, kPage);
    block.reset(std::aligned_alloc(64, size));
    if (block == nullptr) {
      size = 0;
      throw std::bad_alloc();
    }
  }
  return block.get();
}

}  // namespace frugal
