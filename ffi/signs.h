// Signs as bits, and what has none.
#ifndef FSPARSE_SIGNS_H_
#define FSPARSE_SIGNS_H_

#include "elements.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

// Two bytes at a time, whatever the vectors are; NaN is not positive.
inline void PackSigns(const float* x, int64_t n, uint8_t* bits) {
  constexpr int kGroup = 16;
  for (int64_t c = 0; c < n; c += kGroup) {
    uint32_t mask = 0;
    for (int u = 0; u < kGroup; u += kLanes) {
      const int64_t at = c + u;
      const Vec v = at + kLanes <= n ? Load(x + at) : LoadPart(x + at, n - at);
      mask |= PositiveLanes(v) << u;
    }
    bits[c / 8] = static_cast<uint8_t>(mask);
    bits[c / 8 + 1] = static_cast<uint8_t>(mask >> 8);
  }
}

// Times 0 makes NaN of what is not finite, and 0 of all else.
inline bool AllFinite(const float* x, int64_t n) {
  Vec sum = {};
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) sum += Load(x + c) * Vec{};
  if (c < n) sum += LoadPart(x + c, n - c) * Vec{};
  return SumLanes(sum) == 0;
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_SIGNS_H_
