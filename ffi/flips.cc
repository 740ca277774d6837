#include "flips.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

namespace fsparse {
namespace {

// Floats that are not negative are ordered as their bits are. Below them stand an index
// that breaks ties and 16 bits that are carried along.
uint64_t Key(float cost, size_t index, uint32_t carried = 0) {
  uint32_t bits;
  std::memcpy(&bits, &cost, sizeof(bits));
  return uint64_t{bits} << 32 | index << 16 | carried;
}

float CostOf(uint64_t key) {
  const uint32_t bits = static_cast<uint32_t>(key >> 32);
  float cost;
  std::memcpy(&cost, &bits, sizeof(cost));
  return cost;
}

// Few keys, nearly always in random order: no call is worth it.
void InsertionSort(uint64_t* keys, int64_t count) {
  for (int64_t i = 1; i < count; ++i) {
    const uint64_t key = keys[i];
    int64_t at = i;
    for (; at > 0 && keys[at - 1] > key; --at) keys[at] = keys[at - 1];
    keys[at] = key;
  }
}

// The p least of `count` keys, in rising order, to the front.
void SortLeast(std::vector<uint64_t>& keys, int64_t p) {
  constexpr size_t kFew = 24;
  if (keys.size() <= kFew) return InsertionSort(keys.data(), keys.size());
  if (p < static_cast<int64_t>(keys.size())) {
    std::nth_element(keys.begin(), keys.begin() + p, keys.end());
  }
  std::sort(keys.begin(), keys.begin() + p);
}

}  // namespace

Flips::Flips(const bool* sets, int64_t count, int64_t ranks) : sets_(count) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t r = 0; r < ranks; ++r) {
      sets_[i] |= static_cast<uint16_t>(sets[i * ranks + r] << r);
    }
  }
}

void Flips::Probe(const float* margins, int64_t num_bits, int32_t code, int64_t p,
                  int32_t* probes) const {
  uint64_t ranked[kMaxBits];
  for (int64_t j = 0; j < num_bits; ++j) {
    const float cost = std::fabs(margins[j]);
    ranked[j] = Key(cost <= FLT_MAX ? cost : FLT_MAX, j);
  }
  InsertionSort(ranked, num_bits);
  thread_local std::vector<uint64_t> keys;
  keys.resize(sets_.size());
  for (size_t i = 0; i < sets_.size(); ++i) {
    float cost = 0;
    uint32_t flipped = 0;
    for (uint32_t set = sets_[i]; set; set &= set - 1) {
      const uint64_t key = ranked[__builtin_ctz(set)];
      cost += CostOf(key);
      flipped |= 1u << (key >> 16 & 0xffff);
    }
    keys[i] = Key(cost, i, flipped);
  }
  SortLeast(keys, p);
  for (int64_t i = 0; i < p; ++i)
    probes[i] = code ^ static_cast<int32_t>(keys[i] & 0xffff);
}

}  // namespace fsparse
