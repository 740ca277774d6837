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
void CountLevels(const Count* counters, const int32_t* lines, int64_t num_lines,
                 Count first, int64_t* counts) {
  using F = Flags<Count>;
  constexpr int64_t kLinesAtOnce = 60;
  constexpr Count kMost = ~Count{0};
  for (int i = 0; i < kCountedLevels; ++i) counts[i] = 0;
  for (int64_t begin = 0; begin < num_lines; begin += kLinesAtOnce) {
    const int64_t end = Min(begin + kLinesAtOnce, num_lines);
    typename F::Vector hits[kCountedLevels] = {};
    for (int64_t l = begin; l < end; ++l) {
      const Count* line = counters + lines[l] * int64_t{kLineRows};
      for (int64_t c = 0; c < kLineRows; c += F::kCounters) {
        for (int i = 0; i < kCountedLevels; ++i) {
          hits[i] -= F::Between(line + c, static_cast<Count>(first + i), kMost);
        }
      }
    }
    for (int i = 0; i < kCountedLevels; ++i) {
      for (int64_t c = 0; c < F::kCounters; ++c) counts[i] += hits[i][c];
    }
  }
}

// Bit i says whether counter i of a line lies in [least, most].
template <typename Count>
uint64_t LineMask(const Count* line, Count least, Count most) {
  using F = Flags<Count>;
  uint64_t mask = 0;
  for (int c = 0; c < kLineRows; c += F::kCounters) {
#if defined(__AVX512BW__)
    const __m512i v = _mm512_loadu_si512(line + c);
    if constexpr (sizeof(Count) == 1) {
      mask |= _mm512_cmpge_epu8_mask(v, _mm512_set1_epi8(least)) &
              _mm512_cmple_epu8_mask(v, _mm512_set1_epi8(most));
    } else if constexpr (sizeof(Count) == 2) {
      mask |= uint64_t{_mm512_cmpge_epu16_mask(v, _mm512_set1_epi16(least)) &
                       _mm512_cmple_epu16_mask(v, _mm512_set1_epi16(most))}
              << c;
    } else {
      mask |= uint64_t(_mm512_cmpge_epu32_mask(v, _mm512_set1_epi32(least)) &
                       _mm512_cmple_epu32_mask(v, _mm512_set1_epi32(most)))
              << c;
    }
#else  // most flags are 0: eight bytes of them are looked at together
    constexpr int kInWord = sizeof(uint64_t) / sizeof(Count);
    const auto flags = F::Between(line + c, least, most);
    uint64_t words[kVectorBytes / sizeof(uint64_t)];
    std::memcpy(words, &flags, sizeof(flags));
    for (int i = 0; i < F::kCounters; i += kInWord) {
      if (!words[i / kInWord]) continue;
      for (int j = i; j < i + kInWord; ++j) mask |= uint64_t{flags[j] != 0} << (c + j);
    }
#endif
  }
  return mask;
}

template <typename Count>
int64_t PickBetween(const Count* counters, const int32_t* lines, int64_t num_lines,
                    Count least, Count most, int64_t limit, int32_t* rows) {
  int64_t count = 0;
  for (int64_t l = 0; l < num_lines && count < limit; ++l) {
    const int32_t first = lines[l] * kLineRows;
    for (uint64_t mask = LineMask(counters + first, least, most); mask;
         mask &= mask - 1) {
      rows[count++] = first + __builtin_ctzll(mask);
    }
  }
  return count;
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_COUNTERS_H_
