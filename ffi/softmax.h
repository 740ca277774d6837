// Softmax over the active columns of a row, which stays in the L1 cache between visits.
#ifndef FSPARSE_SOFTMAX_H_
#define FSPARSE_SOFTMAX_H_

#include "elements.h"
#include "kernels.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(int32_t))));
constexpr float kInfinity = __builtin_inff();

// e^x within 2 units in the last place; 0 below -86.9, infinite above 88; NaN for NaN.
// Cephes' polynomial, after x = n ln 2 + r.
inline Vec Exp(Vec x) {
  const Vec magic = Splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = x * 1.44269504f + magic;
  const Vec n = shifted - magic;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = Splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const IntVec exponent = (IntVec)shifted - (IntVec)magic;
  p = (Vec)((IntVec)p + (exponent << 23));
  p = x < -86.9f ? Vec{} : p;
  p = x > 88.0f ? Splat(kInfinity) : p;
  return x == x ? p : x;
}

// GCC takes __builtin_convertvector of bytes apart: one by one.
inline IntVec LoadMask(const uint8_t* p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const IntVec wide = (IntVec)_mm512_cvtepu8_epi32(bytes);
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  const IntVec wide = (IntVec)_mm256_cvtepu8_epi32(bytes);
#else
  IntVec wide;
  for (int i = 0; i < kLanes; ++i) wide[i] = p[i];
#endif
  return wide != 0;
}

// Calls fn(j, count, mask) for columns j, ..., j + count - 1 <= j + kLanes - 1, where
// the mask is false past them.
template <typename Fn>
void ForActive(const uint8_t* is_active, int64_t m, const Fn& fn) {
  int64_t j = 0;
  for (; j + kLanes <= m; j += kLanes) fn(j, kLanes, LoadMask(is_active + j));
  if (j == m) return;
  uint8_t rest[kLanes] = {};
  std::memcpy(rest, is_active + j, m - j);
  fn(j, m - j, LoadMask(rest));
}

inline Vec LoadUpTo(const float* p, int64_t count) {
  return count == kLanes ? Load(p) : LoadPart(p, count);
}

inline float MaxOfLanes(Vec v) {
  float most = v[0];
  for (int i = 1; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

inline ExpSum SumExp(const float* x, const uint8_t* is_active, int64_t m) {
  Vec most = Splat(-kInfinity);
  ForActive(is_active, m, [&](int64_t j, int64_t count, IntVec mask) {
    const Vec xj = mask ? LoadUpTo(x + j, count) : Splat(-kInfinity);
    most = xj > most ? xj : most;
  });
  const float peak = MaxOfLanes(most);
  const float shift = peak - peak == 0 ? peak : 0;  // 0 if infinite
  Vec sum{};
  ForActive(is_active, m, [&](int64_t j, int64_t count, IntVec mask) {
    const Vec e = Exp(LoadUpTo(x + j, count) - Splat(shift));
    sum += mask ? e : Vec{};
  });
  return {shift, SumLanes(sum)};
}

inline void ScaledExp(const float* x, const uint8_t* is_active, int64_t m, float shift,
                      float scale, float* out) {
  ForActive(is_active, m, [&](int64_t j, int64_t count, IntVec mask) {
    const Vec e = Exp(LoadUpTo(x + j, count) - Splat(shift)) * Splat(scale);
    const Vec result = mask ? e : Vec{};
    std::memcpy(out + j, &result, count * sizeof(float));
  });
}

inline float DotExp(const float* x, const float* dx, const uint8_t* is_active,
                    int64_t m, float shift) {
  Vec sum{};
  ForActive(is_active, m, [&](int64_t j, int64_t count, IntVec mask) {
    const Vec e = Exp(LoadUpTo(x + j, count) - Splat(shift));
    sum += mask ? e * LoadUpTo(dx + j, count) : Vec{};
  });
  return SumLanes(sum);
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_SOFTMAX_H_
