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

typedef uint32_t Bits __attribute__((vector_size(kLanes * sizeof(uint32_t))));
typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t))));

// A bijection of 32 bits with low bias, of a number or of each lane: Wellons's
// "lowbias32".
template <typename T>
inline T Mix(T h) {
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
inline Halves RoundAtRandom(Vec x, Bits noise) {
  Bits bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const Bits rounded = x != x ? bits | 0x400000 : bits + noise;
  return __builtin_convertvector(rounded >> 16, Halves);
}

// Columns 32 q + r and 32 q + 16 + r are rounded by the halves of hash 16 q + r.
constexpr int kPairs = 16;
constexpr uint32_t kSteps[kPairs] = {0, 1, 2,  3,  4,  5,  6,  7,
                                     8, 9, 10, 11, 12, 13, 14, 15};

// 32 columns whose first hash is of `counter`.
inline void RoundPairs(const float* from, uint32_t counter, uint16_t* to) {
  for (int i = 0; i < kPairs; i += kLanes) {
    Bits hash;
    std::memcpy(&hash, kSteps + i, sizeof(hash));
    hash = Mix(hash * kGolden + counter);
    const Halves low = RoundAtRandom(Load(from + i), hash & 0xffff);
    const Halves high = RoundAtRandom(Load(from + kPairs + i), hash >> 16);
    std::memcpy(to + i, &low, sizeof(low));
    std::memcpy(to + kPairs + i, &high, sizeof(high));
  }
}

inline void RoundRow(const float* from, int64_t d, RoundingKey key, uint16_t* to) {
  uint32_t counter = Mix(Mix(key.seed[0] ^ key.row) + key.seed[1] + key.slot * kGolden);
  int64_t c = 0;
  for (; c + 2 * kPairs <= d; c += 2 * kPairs, counter += kPairs * kGolden) {
    RoundPairs(from + c, counter, to + c);
  }
  if (c == d) return;
  float rest[2 * kPairs] = {};
  uint16_t rounded[2 * kPairs];
  std::memcpy(rest, from + c, (d - c) * sizeof(float));
  RoundPairs(rest, counter, rounded);
  std::memcpy(to + c, rounded, (d - c) * sizeof(uint16_t));
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_ROUNDING_H_
