// Memory: buffers for tensors, and scratch for one call.
#pragma once
#include <node_api.h>

#include <cstddef>

namespace frugal {

// A page-aligned ArrayBuffer outside V8's heap, of huge pages where it is large enough. Its content is zero.
napi_value newArrayBuffer(napi_env env, size_t bytes);

// At least `bytes` of scratch, aligned to 64 bytes, of this JavaScript thread. The next call may move it.
void* scratch(size_t bytes);

}  // namespace frugal
