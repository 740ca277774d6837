// Small counters, in lines of kLineRows: which have reached a level.
#ifndef FSPARSE_COUNTERS_H_
#define FSPARSE_COUNTERS_H_

#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

constexpr int64_t kVectorBytes = 64;

// A vector of flags for the counters from `counters` on: all ones or 0.
template <typename Count>
struct Flags {
  typedef Count Vector __attribute__((vector_size(kVectorBytes)));
  static constexpr int64_t kCounters = kVectorBytes / sizeof(Count);

  // Which counters lie in [least, most].
  static inline Vector Between(const Count* counters, Count least, Count most) {
    Vector v;
    std::memcpy(&v, counters, sizeof(v));
    return reinterpret_cast<Vector>((v >= least) & (v <= most));
  }
};

// Flags are -1: they are subtracted, in lanes that hold 240 of them at most, which fits
// into the smallest Count.
template <typename Count>
int64_t CountAtLeast(const Count* counters, const int32_t* lines, int64_t num_lines,
                     Count least) {
  using F = Flags<Count>;
  constexpr int64_t kLinesAtOnce = 60;
  constexpr Count kMost = ~Count{0};
  int64_t total = 0;
  for (int64_t begin = 0; begin < num_lines; begin += kLinesAtOnce) {
    const int64_t end = Min(begin + kLinesAtOnce, num_lines);
    typename F::Vector hits = {};
    for (int64_t l = begin; l < end; ++l) {
      const Count* line = counters + lines[l] * int64_t{kLineRows};
      for (int64_t i = 0; i < kLineRows; i += F::kCounters) {
        hits -= F::Between(line + i, least, kMost);
      }
    }
    for (int64_t i = 0; i < F::kCounters; ++i) total += hits[i];
  }
  return total;
}

// Most flags are 0: eight bytes of them are looked at together.
template <typename Count>
int64_t PickBetween(const Count* counters, const int32_t* lines, int64_t num_lines,
                    Count least, Count most, int64_t limit, int32_t* rows) {
  using F = Flags<Count>;
  constexpr int kWords = kVectorBytes / sizeof(uint64_t), kBits = 8 * sizeof(Count);
  constexpr int kCountersOfWord = sizeof(uint64_t) / sizeof(Count);
  constexpr uint64_t kFlag = ~uint64_t{0} >> (64 - kBits);
  int64_t count = 0;
  for (int64_t l = 0; l < num_lines && count < limit; ++l) {
    const int32_t first = lines[l] * kLineRows;
    for (int32_t i = 0; i < kLineRows; i += F::kCounters) {
      const auto flags = F::Between(counters + int64_t{first} + i, least, most);
      uint64_t words[kWords];
      std::memcpy(words, &flags, sizeof(flags));
      for (int w = 0; w < kWords; ++w) {
        for (uint64_t rest = words[w]; rest;) {
          const int at = __builtin_ctzll(rest) / kBits;
          rows[count++] = first + i + w * kCountersOfWord + at;
          rest &= ~(kFlag << (at * kBits));
        }
      }
    }
  }
  return count;
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_COUNTERS_H_
