// Chooses the kernels once, when they are first asked for.
#include <cstdlib>
#include <cstring>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

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
namespace amx {
extern const Kernels kKernels;
}
#endif

namespace {

#if defined(__x86_64__)
bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}

// Whether the operating system saves the tiles of a thread.
bool SavesTiles() {
  constexpr uint32_t kTileState = 3u << 17;  // tile configuration and tile data
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kTileState) == kTileState;
}

// Linux lets a process use tiles once it has asked.
bool AskForTiles() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool HasAmx() {
  constexpr uint32_t kTiles = 1u << 24, kBf16Tiles = 1u << 22;
  uint32_t a, b, c, d;
  return HasAvx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kTiles) &&
         (d & kBf16Tiles) && SavesTiles() && AskForTiles();
}

bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

bool Always() { return true; }

struct Level {
  const Kernels* kernels;
  bool (*is_supported)();
};

// The first supported level, or the one that FSPARSE_CPU_LEVEL names; else nullptr.
const Kernels* Choose() {
  const Level levels[] = {
#if defined(__x86_64__)
      {&amx::kKernels, HasAmx},
      {&avx512::kKernels, HasAvx512},
      {&avx2::kKernels, HasAvx2},
#endif
      {&baseline::kKernels, Always}};
  const char* forced = std::getenv("FSPARSE_CPU_LEVEL");
  for (const Level& level : levels) {
    const bool is_wanted =
        !forced || !*forced || !std::strcmp(forced, level.kernels->name);
    if (is_wanted && level.is_supported()) return level.kernels;
  }
  return nullptr;
}

}  // namespace

const Kernels* Dispatch() {
  static const Kernels* const chosen = Choose();
  return chosen;
}

}  // namespace fsparse
