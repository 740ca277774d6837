// Reads the elements of a matrix, f32 or bf16, as f32.
//
// A bf16 is the upper half of the f32 of the same value, so widening is a shift, exact
// for every value. It is done in registers as an element is read: half the traffic of
// f32, and the sums that follow are the same ones.
#ifndef FSPARSE_ELEMENTS_H_
#define FSPARSE_ELEMENTS_H_

#include "kernels.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

struct Bf16 {
  uint16_t bits;
};

inline float Widen(float x) { return x; }

inline float Widen(Bf16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}

// out[i] = p[i] for i < kCount.
template <int kCount>
void Widen(const float* p, float* out) {
  std::memcpy(out, p, kCount * sizeof(float));
}

template <int kCount>
void Widen(const Bf16* p, float* out) {
  for (int i = 0; i < kCount; ++i) out[i] = Widen(p[i]);
}

inline Vec Load(const Bf16* p) {
#if defined(__AVX512F__)  // GCC widens them in two halves
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(
      _mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, halves), 16));
#else
  typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t))));
  typedef uint32_t Bits __attribute__((vector_size(kLanes * sizeof(uint32_t))));
  Halves halves;
  std::memcpy(&halves, p, sizeof(halves));
  const Bits bits = __builtin_convertvector(halves, Bits) << 16;
  Vec v;
  std::memcpy(&v, &bits, sizeof(v));
  return v;
#endif
}

// The first `count` elements, then zeros.
template <typename T>
Vec LoadPart(const T* p, int64_t count) {
  float lane[kLanes];
  for (int i = 0; i < kLanes; ++i) lane[i] = i < count ? Widen(p[i]) : 0.0f;
  return Load(lane);
}

inline bool IsPadding(const Rows& rows, int64_t r) {
  return rows.ids && (rows.ids[r] < 0 || rows.ids[r] >= rows.num_rows);
}

// Row r, whose elements are T; nullptr if it is padding.
template <typename T>
const T* RowPointer(const Rows& rows, int64_t r) {
  if (IsPadding(rows, r)) return nullptr;
  const int64_t id = rows.ids ? rows.ids[r] : r;
  return static_cast<const T*>(rows.data) + id * rows.stride;
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_ELEMENTS_H_
