// Chooses the table of loops for this processor.
#include <cstdlib>
#include <cstring>

#include "loops.hpp"

namespace frugal {

#ifdef FRUGAL_X86
namespace v2 { extern const Loops table; }
namespace v3 { extern const Loops table; }
namespace v4 { extern const Loops table; }

static bool supportsV3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}

static bool supportsV4() {
  return supportsV3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static const Loops& select() {
  __builtin_cpu_init();
  const char* limit = std::getenv("FRUGAL_NATIVE_ISA");  // 'v2' or 'v3': to test the code of older processors
  const int level = limit != nullptr && std::strlen(limit) == 2 ? limit[1] - '0' : 4;
  if (level >= 4 && supportsV4()) return v4::table;
  if (level >= 3 && supportsV3()) return v3::table;
  return v2::table;
}
#else
namespace baseline { extern const Loops table; }

static const Loops& select() { return baseline::table; }
#endif

const Loops& loops() {
  static const Loops& chosen = select();
  return chosen;
}

}  // namespace frugal
