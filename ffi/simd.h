// The vector type of the instruction set being compiled, by compiler extension: the
// same source becomes SSE2 or NEON (baseline), AVX2 or AVX-512 code.
//
// Everything that kernels.cc includes lives in a namespace named after the level, and
// uses no templates of the standard library: the linker keeps one copy of such a
// template, which could be one that the running CPU lacks instructions for.
#ifndef FSPARSE_SIMD_H_
#define FSPARSE_SIMD_H_

#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace fsparse::FSPARSE_LEVEL {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));

inline Vec Load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline void Store(float* p, Vec v) { std::memcpy(p, &v, sizeof(v)); }

// s - 0 is s, even for -0: no subtraction remains.
inline Vec Splat(float s) { return s - Vec{}; }

// Lanes are added pairwise, in an order that the level fixes.
inline float SumLanes(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(v);  // the same order, without a detour through memory
#endif
  float lane[kLanes];
  Store(lane, v);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

// Bit i is set where lane i is greater than 0.
inline uint32_t PositiveLanes(Vec v) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(v, Vec{}, _CMP_GT_OQ);
#elif defined(__AVX2__)
  return _mm256_movemask_ps(reinterpret_cast<Vec>(v > Vec{}));
#elif defined(__SSE2__)
  return _mm_movemask_ps(reinterpret_cast<Vec>(v > Vec{}));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= uint32_t{v[i] > 0} << i;
  return bits;
#endif
}

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_SIMD_H_
