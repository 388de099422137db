// Dense linear algebra by LAPACK; see lapack.cpp.
#pragma once
#include <node_api.h>

namespace frugal {

// Adds the functions lapack… of src/addon.ts to the addon's exports.
void defineLapack(napi_env env, napi_value exports);

}  // namespace frugal
