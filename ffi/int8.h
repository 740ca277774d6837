// Integers of 8 bits times integers of 16, summed exactly in 32: the bits are the same
// at every level, in any order.
#ifndef FSPARSE_INT8_H_
#define FSPARSE_INT8_H_

#include "elements.h"
#include "kernels.h"
#include "signs.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

typedef int32_t Ints __attribute__((vector_size(kLanes * sizeof(int32_t))));
typedef int16_t Shorts __attribute__((vector_size(2 * kLanes * sizeof(int16_t))));

constexpr int kMostShort = 32767, kMostByte = 127;

inline Shorts Load(const int16_t* p) {
  Shorts v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline Shorts Load(const int8_t* p) {
#if defined(__AVX512BW__)  // GCC widens them in two halves
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return reinterpret_cast<Shorts>(_mm512_maskz_cvtepi8_epi16(~__mmask32{0}, bytes));
#else
  typedef int8_t Bytes __attribute__((vector_size(2 * kLanes)));
  Bytes bytes;
  std::memcpy(&bytes, p, sizeof(bytes));
  return __builtin_convertvector(bytes, Shorts);
#endif
}

// The first `count` elements, then zeros.
inline Shorts LoadPart(const int16_t* p, int64_t count) {
  int16_t lane[2 * kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lane[i] = p[i];
  return Load(lane);
}

inline Shorts LoadPart(const int8_t* p, int64_t count) {
  int8_t lane[2 * kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lane[i] = p[i];
  return Load(lane);
}

// Adds two products to each lane.
inline Ints MultiplyAdd(Ints sum, Shorts x, Shorts w) {
#if defined(__AVX512BW__)
  return sum + reinterpret_cast<Ints>(_mm512_madd_epi16(reinterpret_cast<__m512i>(x),
                                                        reinterpret_cast<__m512i>(w)));
#elif defined(__AVX2__)
  return sum + reinterpret_cast<Ints>(_mm256_madd_epi16(reinterpret_cast<__m256i>(x),
                                                        reinterpret_cast<__m256i>(w)));
#elif defined(__SSE2__)
  return sum + reinterpret_cast<Ints>(_mm_madd_epi16(reinterpret_cast<__m128i>(x),
                                                     reinterpret_cast<__m128i>(w)));
#else
  typedef int16_t Half __attribute__((vector_size(kLanes * sizeof(int16_t))));
  Half halves[4];
  std::memcpy(halves, &x, sizeof(x));
  std::memcpy(halves + 2, &w, sizeof(w));
  for (int i = 0; i < 2; ++i) {
    sum += __builtin_convertvector(halves[i], Ints) *
           __builtin_convertvector(halves[2 + i], Ints);
  }
  return sum;
#endif
}

inline Vec ToFloat(Ints v) { return __builtin_convertvector(v, Vec); }

// values[:] = x (kMostShort / max |x|), to the nearest integer, of two as near to the
// even one; returns max |x| / kMostShort, which they are times, or 0 if that is no
// normal float. A row that is not finite has values of 0 and scale NaN.
inline float QuantizeRow(const float* x, int64_t d, int16_t* values) {
  std::memset(values, 0, d * sizeof(int16_t));
  if (!AllFinite(x, d)) return __builtin_nanf("");
  float most = 0;
  for (int64_t c = 0; c < d; ++c) most = __builtin_fmaxf(most, __builtin_fabsf(x[c]));
  const float scale = most * (1.0f / kMostShort), inverse = kMostShort / most;
  if (scale < __FLT_MIN__) return 0;
  for (int64_t c = 0; c < d; ++c) {
    const float v = __builtin_nearbyintf(x[c] * inverse);
    values[c] = static_cast<int16_t>(
        __builtin_fmaxf(-kMostShort, __builtin_fminf(v, kMostShort)));
  }
  return scale;
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_INT8_H_
