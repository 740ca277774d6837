// Rows stored as bf16: widened exactly, and rounded back at random.
//
// A value between two neighbours of bf16 goes to the upper one with the probability
// that keeps its expectation, so that updates far below a bf16 step are not lost. The
// random bits are a hash of (seed, row, slot, column): whoever rounds an element, and
// in whatever order, rounds it alike.
#ifndef FSPARSE_ROUNDING_H_
#define FSPARSE_ROUNDING_H_

#include <cstdint>
#include <cstring>

#include "elements.h"
#include "kernels.h"

namespace fsparse::FSPARSE_LEVEL {

constexpr uint32_t kGolden = 0x9e3779b9;  // 2^32 / golden ratio, spreads consecutive n

// A bijection of 32 bits with low bias: Wellons's "lowbias32".
inline uint32_t Mix(uint32_t h) {
  h ^= h >> 16;
  h *= 0x7feb352d;
  h ^= h >> 15;
  h *= 0x846ca68b;
  return h ^ h >> 16;
}

inline void WidenRow(const uint16_t* from, int64_t d, float* to) {
  for (int64_t c = 0; c < d; ++c) to[c] = Widen(Bf16{from[c]});
}

// Adding up to 2^16 - 1 below the 16 bits that stay carries with the right probability;
// of a value that bf16 holds, never. NaN would carry into infinity: it stays quiet NaN.
inline void RoundRow(const float* from, int64_t d, RoundingKey key, uint16_t* to) {
  const uint32_t row_key =
      Mix(Mix(key.seed[0] ^ key.row) + key.seed[1] + key.slot * kGolden);
  for (int64_t c = 0; c < d; ++c) {
    uint32_t bits;
    std::memcpy(&bits, from + c, sizeof(bits));
    const uint32_t noise = Mix(row_key + static_cast<uint32_t>(c) * kGolden) & 0xffff;
    const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    to[c] = static_cast<uint16_t>(is_nan ? bits >> 16 | 0x40 : (bits + noise) >> 16);
  }
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_ROUNDING_H_
