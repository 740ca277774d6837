// Chooses the kernels once, when they are first asked for.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace fsparse {

namespace baseline {
extern const Kernels kKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
#endif

namespace {

struct Level {
  const Kernels* kernels;
  bool supported;
};

// The first supported level, or the one that FSPARSE_CPU_LEVEL names; else nullptr.
const Kernels* Choose() {
  const Level levels[] = {
#if defined(__x86_64__)
      {&avx512::kKernels,
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")},
      {&avx2::kKernels,
       __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
      {&baseline::kKernels, true}};
  const char* forced = std::getenv("FSPARSE_CPU_LEVEL");
  for (const Level& level : levels) {
    if (!level.supported) continue;
    if (!forced || !*forced || !std::strcmp(forced, level.kernels->name)) {
      return level.kernels;
    }
  }
  return nullptr;
}

}  // namespace

const Kernels* Dispatch() {
  static const Kernels* const chosen = Choose();
  return chosen;
}

}  // namespace fsparse
