// Random rotations of a row by fast Walsh-Hadamard transforms.
//
// The widest butterflies come first, so that of the last transform only as many outputs
// as are asked for need more than sums. A row at a time: it stays in L1 with its signs,
// which as many rows as a vector has lanes would not, and no transposition is needed.
#ifndef FSPARSE_HADAMARD_H_
#define FSPARSE_HADAMARD_H_

#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

// As many vectors as the registers hold, with some to spare.
#if defined(__AVX512F__)
constexpr int kRadix = 16;
#else
constexpr int kRadix = 8;
#endif

typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline IntVec LaneNumbers() {
  constexpr int32_t kNumbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  IntVec numbers;
  std::memcpy(&numbers, kNumbers, sizeof(numbers));
  return numbers;
}

inline Vec Shuffle(Vec v, IntVec lanes) {
#if defined(__clang__)
  return __builtin_shufflevector(v, lanes);
#else
  return __builtin_shuffle(v, lanes);
#endif
}

// Butterflies of lanes i and i + kHalf. A product with +-1 is exact, fused or not.
template <int kHalf>
Vec ButterflyLanes(Vec v) {
  const IntVec number = LaneNumbers();
  const IntVec is_upper = (number & kHalf) / kHalf;
  const Vec sign = __builtin_convertvector(1 - 2 * is_upper, Vec);
  return v * sign + Shuffle(v, number ^ kHalf);
}

// H of the lanes.
inline Vec TransformLanes(Vec v) {
#if defined(__AVX512F__)
  v = ButterflyLanes<8>(v);
#endif
#if defined(__AVX2__)
  v = ButterflyLanes<4>(v);
#endif
  return ButterflyLanes<1>(ButterflyLanes<2>(v));
}

// H of kCount vectors, lane by lane, or of all their lanes. By recursion, which leaves
// the compiler no loop that it may not unroll.
template <int kCount, bool kAll>
inline void TransformVectors(Vec* v) {
  if constexpr (kCount > 1) {
    constexpr int kHalf = kCount / 2;
    for (int u = 0; u < kHalf; ++u) {
      const Vec a = v[u], b = v[u + kHalf];
      v[u] = a + b;
      v[u + kHalf] = a - b;
    }
    TransformVectors<kHalf, kAll>(v);
    TransformVectors<kHalf, kAll>(v + kHalf);
  } else if constexpr (kAll) {
    *v = TransformLanes(*v);
  }
}

// The next butterflies, of blocks of kCount * stride floats: each becomes kCount
// blocks. Signs are nullptr but in the pass that reads first; the last one has vectors
// as blocks.
template <int kCount, bool kIsLast>
void Pass(const float* from, const float* signs, int64_t n, int64_t stride, float* to) {
  for (int64_t block = 0; block < n; block += kCount * stride) {
    for (int64_t c = block; c < block + stride; c += kLanes) {
      Vec v[kCount];
      for (int u = 0; u < kCount; ++u) v[u] = Load(from + c + u * stride);
      if (signs) {
        for (int u = 0; u < kCount; ++u) v[u] *= Load(signs + c + u * stride);
      }
      TransformVectors<kCount, kIsLast>(v);
      for (int u = 0; u < kCount; ++u) Store(to + c + u * stride, v[u]);
    }
  }
}

template <bool kIsLast>
void PassOf(int64_t count, const float* from, const float* signs, int64_t n,
            int64_t stride, float* to) {
  switch (count) {
    case 1:
      return Pass<1, kIsLast>(from, signs, n, stride, to);
    case 2:
      return Pass<2, kIsLast>(from, signs, n, stride, to);
    case 4:
      return Pass<4, kIsLast>(from, signs, n, stride, to);
    case 8:
      return Pass<8, kIsLast>(from, signs, n, stride, to);
    default:
      return Pass<kRadix, kIsLast>(from, signs, n, stride, to);
  }
}

// Less than a vector.
inline void TransformFew(const float* from, const float* signs, int64_t n, float* to) {
  for (int64_t c = 0; c < n; ++c) to[c] = signs ? from[c] * signs[c] : from[c];
  for (int64_t half = n / 2; half > 0; half /= 2) {
    for (int64_t c = 0; c < n; ++c) {
      if (c & half) continue;
      const float a = to[c], b = to[c + half];
      to[c] = a + b;
      to[c + half] = a - b;
    }
  }
}

// to = H D from, which may be one; D is 1 if there are no signs.
inline void Transform(const float* from, const float* signs, int64_t n, float* to) {
  if (n < kLanes) return TransformFew(from, signs, n, to);
  int64_t block = n;
  for (; block > kRadix * kLanes; block /= kRadix) {
    PassOf<false>(kRadix, from, signs, n, block / kRadix, to);
    from = to;
    signs = nullptr;
  }
  PassOf<true>(block / kLanes, from, signs, n, kLanes, to);
}

// to[c] = the sum of elements c and c + half of D from.
inline void Fold(const float* from, const float* signs, int64_t half, float* to) {
  int64_t c = 0;
  for (; c + kLanes <= half; c += kLanes) {
    Vec a = Load(from + c), b = Load(from + half + c);
    if (signs) a *= Load(signs + c), b *= Load(signs + half + c);
    Store(to + c, a + b);
  }
  for (; c < half; ++c) {
    const float sa = signs ? signs[c] : 1, sb = signs ? signs[half + c] : 1;
    to[c] = sa * from[c] + sb * from[half + c];
  }
}

// The first m of H D from: no differences while the sums alone are enough.
inline void TransformFirst(int64_t m, const float* from, const float* signs, int64_t n,
                           float* to) {
  for (; n / 2 >= m; n /= 2) {
    Fold(from, signs, n / 2, to);
    from = to;
    signs = nullptr;
  }
  Transform(from, signs, n, to);
}

inline void Rotate(const float* x, const float* signs, int64_t n, int64_t m, float* y) {
  Transform(x, signs, n, y);
  Transform(y, signs + n, n, y);
  TransformFirst(m, y, signs + 2 * n, n, y);
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_HADAMARD_H_
